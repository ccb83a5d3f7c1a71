// Groups of ranks that are wrong, each in one way: what the suite must find. kill_matrix_groups.txt says who finds
// what.
#pragma once

namespace attnmux::negative {

enum class GroupDefect {
  // What arrives.
  kDropsShard,
  kMixesSources,
  kCompletesEarly,
  kWritesWhatItSends,
  kOverwritesSum,
  kSumsFromItself,
  kCountsItself,
  kEveryoneAlone,
  kSubgroupOfAnotherKind,
  kRefusesEmpty,
  kTakesStrided,
  // A rank that fails.
  kSwallowsFailure,
  kBlamesAnother,
  kLosesReason,
  kHeals,
  kIgnoresDeadline,
  // The process.
  kHangsOnEmptyRank,
  kExitsInExchange,
  kFakesRecordsOfRank,
  kPrintsOnEveryRank,
};

extern const GroupDefect kGroupDefect;  // of this plugin, see group_defect.cpp

}  // namespace attnmux::negative
