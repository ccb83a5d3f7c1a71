#include "conformance/rank_cases.h"

#include <algorithm>
#include <functional>
#include <thread>

#include "attnmux/error.h"
#include "distributed/faults.h"
#include "distributed/transport_cases.h"

namespace attnmux::conformance {
namespace {

using namespace std::chrono_literals;
using testing::of;

constexpr std::chrono::milliseconds kDeadline = 20s, kShortDeadline = 1500ms;
// Beyond the deadline; not by another one, which is how long ranks of one process are waited for.
constexpr std::chrono::milliseconds kStall = kShortDeadline + 500ms;
constexpr char kReason[] = "the disk is full";

// "exchange_all_dtypes" -> "exchange-all-dtypes"
std::string check_name(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

Check check_of(testing::Promise promise) {
  switch (promise) {
    case testing::Promise::kIdentity: return Check::kGroupIdentity;
    case testing::Promise::kBytes: return Check::kGroupBytes;
    case testing::Promise::kInputs: return Check::kGroupInputs;
    case testing::Promise::kSum: return Check::kGroupSum;
    case testing::Promise::kCount: return Check::kGroupCount;
    case testing::Promise::kArguments: return Check::kGroupArguments;
  }
  return Check::kGroupCall;
}

void run_transport_case(CpGroup& group, const Case& c, CaseResult& result) {
  testing::is_asked = [](testing::Promise promise) { return is_enabled(check_of(promise)); };
  try {
    for (const testing::TransportCase& transport : testing::transport_cases()) {
      if (check_name(transport.name) == c.check) transport.run(group);
    }
  } catch (const testing::BrokenPromise& broken) {
    result.fail(check_of(broken.promise), broken.what());
  } catch (const std::exception& error) {
    result.fail(Check::kGroupCall, std::string("a call that every rank makes alike threw: ") + error.what());
  }
}

void call(CpGroup& group, const std::string& name) {
  for (const testing::NamedCall& named : testing::named_calls()) {
    if (named.name == name) named.call(group);
  }
}

struct FaultCase {
  const char* name;
  const char* call;                                              // what the other ranks are in
  std::vector<std::string> (*told)(int32_t rank, int32_t size);  // what their error says; `rank` is the one at fault
};

std::vector<std::string> its_name(int32_t rank, int32_t size) { return {of(rank, size)}; }
std::vector<std::string> its_reason(int32_t rank, int32_t size) { return {of(rank, size), kReason}; }

const std::vector<FaultCase>& faults() {
  static const std::vector<FaultCase> all = {{"throw", "exchange", its_name},
                                             {"return", "all_gather", its_name},
                                             {"abort", "subgroup", its_reason},
                                             {"stall", "all_reduce", its_name},
                                             {"mismatch", "exchange", its_name}};
  return all;
}

// What the rank in the middle does instead of the others' call.
void misbehave(CpGroup& group, const FaultCase& fault) {
  const std::string name = fault.name;
  if (name == "throw") throw InjectedFault("injected by the suite");
  if (name == "abort") group.abort(kReason);
  if (name == "stall") std::this_thread::sleep_for(kStall);
  try {
    if (name == "stall") call(group, fault.call);
    if (name == "mismatch") group.barrier();
  } catch (const Error&) {  // that it is told, too, is not what is asked here
  }
}

void expect_told(CpGroup& group, const FaultCase& fault, int32_t culprit, CaseResult& result) {
  const std::string what =
      std::string(fault.call) + ", while " + of(culprit, group.size()) + " did \"" + fault.name + "\"";
  try {
    call(group, fault.call);
    result.fail(Check::kFaultSurfaces, what + ", ended as if all were well");
    return;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kCommError) {
      result.fail(Check::kFaultSurfaces,
                  what + ", threw " + std::string(to_string(error.code())) + " and not CommError: " + error.what());
      return;
    }
    for (const std::string& part : fault.told(culprit, group.size())) {
      if (std::string(error.what()).find(part) == std::string::npos) {
        result.fail(Check::kFaultNames, what + ", says nothing of \"" + part + "\": " + error.what());
      }
    }
  } catch (const std::exception& error) {
    result.fail(Check::kFaultSurfaces, what + ", threw something else than an attnmux::Error: " + error.what());
    return;
  }
  for (const testing::NamedCall& later : testing::named_calls()) {
    try {
      later.call(group);
    } catch (const Error& error) {
      if (error.code() == ErrorCode::kCommError) continue;
    }
    result.fail(Check::kFaultStays, later.name + " after the group had failed did not throw CommError");
  }
}

void run_fault(CpGroup& group, const FaultCase& fault, CaseResult& result) {
  const int32_t culprit = group.size() / 2;
  try {
    group.barrier();
  } catch (const Error& error) {
    result.fail(Check::kGroupCall, std::string("a barrier threw: ") + error.what());
    return;
  }
  std::this_thread::sleep_for(50ms);  // so that all ranks have left the barrier
  if (group.rank() == culprit) {
    misbehave(group, fault);
  } else {
    expect_told(group, fault, culprit, result);
  }
}

}  // namespace

std::vector<std::string> group_checks() {
  std::vector<std::string> names;
  for (const testing::TransportCase& transport : testing::transport_cases())
    names.push_back(check_name(transport.name));
  return names;
}

std::vector<std::string> fault_checks() {
  std::vector<std::string> names;
  for (const FaultCase& fault : faults()) names.emplace_back(fault.name);
  return names;
}

CpGroupOptions options_of(const Case& c) {
  return {.deadline = c.family == Family::kFaults && c.check == "stall" ? kShortDeadline : kDeadline};
}

void run_rank_case(CpGroup& group, const Case& c, CaseResult& result) {
  if (group.size() != c.cp || group.rank() < 0 || group.rank() >= group.size()) {
    result.fail(Check::kGroupIdentity, "it is rank " + std::to_string(group.rank()) + " of " +
                                           std::to_string(group.size()) + " where " + std::to_string(c.cp) +
                                           " ranks were started");
    return;
  }
  if (c.family == Family::kGroup) return run_transport_case(group, c, result);
  for (const FaultCase& fault : faults()) {
    if (fault.name == c.check) run_fault(group, fault, result);
  }
}

CaseResult merged(const Case& c, const std::vector<CaseResult>& of_ranks) {
  CaseResult all;
  all.name = to_string(c);
  const std::string follows(to_string(Check::kGroupCall));
  bool found = false;  // something that does not follow from what another rank found
  for (const CaseResult& one : of_ranks) {
    all.seconds = std::max(all.seconds, one.seconds);
    for (const Failure& failure : one.failures) found |= failure.check != follows;
  }
  for (size_t rank = 0; rank < of_ranks.size(); ++rank) {
    for (const Failure& failure : of_ranks[rank].failures) {
      if (found && failure.check == follows) continue;
      all.status = Status::kFail;
      const bool known = std::any_of(all.failures.begin(), all.failures.end(),
                                     [&](const Failure& other) { return other.check == failure.check; });
      if (known) continue;
      const auto size = static_cast<int32_t>(of_ranks.size());
      all.failures.push_back({failure.check, of(static_cast<int32_t>(rank), size) + ": " + failure.text});
    }
  }
  return all;
}

}  // namespace attnmux::conformance
