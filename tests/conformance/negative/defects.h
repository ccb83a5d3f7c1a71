// Plugins that are wrong, each in one way: what the suite must find. kill_matrix.txt says who finds what.
#pragma once

namespace attnmux::negative {

enum class Defect {
  kNone,
  // Promises.
  kClaimsWindowComputesFull,
  kDeclinesEverything,
  kDeclinesWithoutReason,
  kQueryCountsCalls,
  kQueryDependsOnThread,
  kStopsAtFirstGate,
  kClaimsDropout,
  kRefusesAfterYes,
  kThrowsOtherErrors,
  kInfoChanges,
  kSecondInitRegistersNothing,
  kDuplicateId,
  // Forward.
  kDropsMask,
  kCausalTopLeft,
  kCausalOffByOne,
  kIgnoresDocuments,
  kLeakyMask,
  kIgnoresScale,
  kLseInLog2,
  kLseWithoutScale,
  kLseRounded,
  kFiniteSentinel,
  kNanOnEmptyRows,
  kDropsLastTile,
  kOneBadTile,
  kOneBadElement,
  kBiasEverywhere,
  kScoresRounded,
  kLargeLogits,
  kOutInFp32,
  kWrongHeadUnderGqa,
  kDropsLastKey,
  // Backward.
  kDkWrongUnderGqa,
  kDqWithoutScale,
  kBackwardIgnoresMask,
  kBackwardIgnoresLse,
  kDoutAsContiguous,
  kWithoutDelta,
  kDqOnEmptyRows,
  // Distributed attention.
  kStaleKeysInBackward,
  kMaskOfThread,
  kRefusesParts,
  // Memory and threads.
  kWritesPastEnd,
  kWritesBeforeRefusing,
  kModifiesInputs,
  kStridedAsContiguous,
  kQuadraticWorkspace,
  kLeaksTensors,
  kLeaksHeap,
  kStaticScratch,
  kFalseDeterminism,
  kBrokenAfterRefusal,
  // The process.
  kThrowsInInit,
  kHangsInInit,
  kExitsInInit,
  kHangs,
  kAborts,
  kCrashes,
  kExits,
  kFakesRecords,
  kClosesChannel,
  kHangsInShutdown,
  kPrintsWithoutEnd,
};

extern const Defect kDefect;  // of this plugin, see defect.cpp

}  // namespace attnmux::negative
