#include "conformance/group_run.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>

#include "attnmux/error.h"
#include "conformance/line_channel.h"
#include "conformance/mpirun_launch.h"
#include "conformance/rank_cases.h"

namespace attnmux::conformance {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr int kMaxEnds = 3;   // launches that ended before their time, before other cases are given up
constexpr double kGrace = 3;  // seconds for the others once a rank has found something

// The results of one launch, as they come in.
class Batch {
 public:
  Batch(const GroupSubject& group, std::vector<Case> cases)
      : group_(group),
        cases_(std::move(cases)),
        ranks_(static_cast<size_t>(cases_.front().cp)),
        records_(cases_.size(), std::vector<std::optional<CaseResult>>(ranks_)),
        done_(ranks_, false) {}

  // How many cases came to a result; `ended` is set where the launch did before its time.
  size_t run(std::vector<CaseResult>& results, bool& ended) {
    const std::string secret = new_secret();
    json texts = json::array();
    for (const Case& c : cases_) texts.push_back(to_string(c));
    MpirunLaunch launch(cases_.front().cp, json{{"secret", secret}, {"group", group_.id}, {"cases", texts}}.dump(),
                        group_.plugin);
    const std::optional<RankEvent::Kind> cause = watch(launch, secret, results);
    const LaunchEnd end = launch.end();
    if (cause) {
      ended = true;
      results.push_back(lost(*cause, end));
      reported_ = std::min(reported_ + 1, cases_.size());
    }
    if (end.flooded) results.back().warn("printed more than a megabyte");
    return reported_;
  }

 private:
  // Until all is done, or a case did not pass. What ended the launch before that, or nothing.
  std::optional<RankEvent::Kind> watch(MpirunLaunch& launch, const std::string& secret,
                                       std::vector<CaseResult>& results) {
    size_t processes_ended = 0;
    auto last = Clock::now();  // when a rank got further
    for (;;) {
      const double left = (found_something() ? std::min(kGrace, group_.seconds) : group_.seconds) -
                          Seconds(Clock::now() - last).count();
      if (left <= 0) return RankEvent::Kind::kSilent;
      const RankEvent event = launch.next(left);
      if (event.kind == RankEvent::Kind::kLine) {
        if (take(answer_in(event.line, secret))) last = Clock::now();
        if (!report(results) || done_count() == ranks_) return std::nullopt;
      } else if (event.kind != RankEvent::Kind::kEnded || ++processes_ended > done_count()) {
        return event.kind;
      }  // else it had said that it was done
    }
  }

  size_t done_count() const { return static_cast<size_t>(std::count(done_.begin(), done_.end(), true)); }

  // False for what is no answer of a rank.
  bool take(const json& answer) {
    if (!answer.contains("rank") || !answer["rank"].is_number_integer()) return false;
    const auto rank = answer["rank"].get<int64_t>();
    if (rank < 0 || rank >= static_cast<int64_t>(ranks_)) return false;
    const auto of_rank = static_cast<size_t>(rank);
    if (answer.contains("done")) done_[of_rank] = true;
    if (!answer.contains("end")) return true;
    const auto index = answer["end"].get<size_t>();
    if (index < cases_.size()) records_[index][of_rank] = from_record(answer["record"]);
    return true;
  }

  // The cases that every rank has finished; false behind one that did not pass: the group is of no use any more.
  bool report(std::vector<CaseResult>& results) {
    while (reported_ < cases_.size()) {
      std::vector<CaseResult> of_ranks;
      for (const auto& record : records_[reported_]) {
        if (!record) return true;
        of_ranks.push_back(*record);
      }
      results.push_back(merged(cases_[reported_++], of_ranks));
      if (results.back().bad()) return false;
    }
    return true;
  }

  // In the case that is under way.
  bool found_something() const {
    if (reported_ == cases_.size()) return false;
    const auto& of_ranks = records_[reported_];
    return std::any_of(of_ranks.begin(), of_ranks.end(), [](const auto& record) { return record && record->bad(); });
  }

  // Of the case in which the launch ended.
  CaseResult lost(RankEvent::Kind cause, const LaunchEnd& end) const {
    const bool in_shutdown = reported_ == cases_.size();
    const size_t index = in_shutdown ? reported_ - 1 : reported_;
    std::vector<CaseResult> of_ranks(ranks_);
    std::string missing;
    for (size_t rank = 0; rank < ranks_; ++rank) {
      const auto& record = records_[index][rank];
      if (record) of_ranks[rank] = *record;
      if (in_shutdown ? !done_[rank] : !record) missing += (missing.empty() ? "" : ", ") + std::to_string(rank);
    }
    CaseResult result = merged(cases_[index], of_ranks);
    if (in_shutdown) result.name += " (shutdown)";
    if (result.bad()) return result;
    const bool silent = cause == RankEvent::Kind::kSilent;
    result.status = silent ? Status::kTimeout : Status::kCrash;
    const std::string what = silent
                                 ? "no sign of life for " + std::to_string(static_cast<int64_t>(group_.seconds)) + " s"
                                 : "a process of the launch ended";
    result.failures.push_back({silent ? "timeout" : "crash", what + "; the case is unfinished on rank " + missing +
                                                                 " of " + std::to_string(ranks_) +
                                                                 last_words(end.printed)});
    return result;
  }

  const GroupSubject& group_;
  std::vector<Case> cases_;
  size_t ranks_;
  std::vector<std::vector<std::optional<CaseResult>>> records_;  // [cases][ranks]
  std::vector<bool> done_;                                       // [ranks]
  size_t reported_ = 0;
};

// Cases [from, end) share a launch.
size_t end_of_batch(const std::vector<Case>& cases, size_t from) {
  size_t end = from + 1;
  if (cases[from].family == Family::kFaults) return end;
  while (end < cases.size() && cases[end].family == cases[from].family && cases[end].cp == cases[from].cp) ++end;
  return end;
}

}  // namespace

void run_group_on_processes(const GroupSubject& group, const std::vector<std::string>& texts,
                            std::vector<CaseResult>& results) {
  std::vector<Case> cases;
  for (const std::string& text : texts) cases.push_back(parse_case(text));
  int ends = 0;
  for (size_t at = 0; at < cases.size();) {
    if (ends == kMaxEnds) {
      CaseResult lost;
      lost.name = to_string(cases[at++]);
      lost.status = Status::kCrash;
      lost.failures.push_back({"crash", "not run: " + std::to_string(ends) + " launches ended before their time"});
      results.push_back(lost);
      continue;
    }
    bool ended = false;
    const auto first = cases.begin() + static_cast<std::ptrdiff_t>(at);
    const auto last = cases.begin() + static_cast<std::ptrdiff_t>(end_of_batch(cases, at));
    at += Batch(group, {first, last}).run(results, ended);
    ends += ended;
  }
}

CaseResult run_group_on_threads(const Case& c) {
  std::vector<CaseResult> of_ranks(static_cast<size_t>(c.cp));
  const auto begin = Clock::now();
  std::string error;
  try {
    run_threads_group(static_cast<int32_t>(c.cp), options_of(c), [&](CpGroup& group) {
      CaseResult& mine = of_ranks.at(static_cast<size_t>(group.rank()));
      run_rank_case(group, c, mine);
      if (mine.bad()) group.abort("a case of the conformance suite failed on this rank");
    });
  } catch (const Error& thrown) {
    error = thrown.what();
  }
  CaseResult result = merged(c, of_ranks);
  // A fault ends the run with an error by intention.
  if (!error.empty() && c.family == Family::kGroup && !result.bad()) result.fail(Check::kGroupCall, error);
  result.seconds = Seconds(Clock::now() - begin).count();
  return result;
}

}  // namespace attnmux::conformance
