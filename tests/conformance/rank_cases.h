// What each rank of a group does in a case of the families group and faults, and what it finds.
//
//   run_rank_case(group, parse_case("group/check=casts,cp=3"), result);    // on every rank, in the same order
//
// Of the family group: the cases that every transport runs (tests/distributed/transport_cases.h). Of the family faults:
// the rank in the middle fails, each other one must learn of it. Any thread, one for each rank.
#pragma once

#include <chrono>
#include <stdexcept>
#include <string>
#include <vector>

#include "attnmux/cp_group.h"
#include "conformance/case.h"
#include "conformance/case_result.h"

namespace attnmux::conformance {

std::vector<std::string> group_checks();  // "casts", ...
std::vector<std::string> fault_checks();  // "throw", ...

// What the group of a case is connected with.
CpGroupOptions options_of(const Case& c);

// The rank that fails lets it out, as a program does that ends with an error.
struct InjectedFault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Collective. Throws InjectedFault on the rank that is to throw; a finding of this rank is in `result`.
// REQUIRES: the group has c.cp ranks. A group that has been through a case of the family faults is used up.
void run_rank_case(CpGroup& group, const Case& c, CaseResult& result);

// One result out of each rank's. What a call threw because another rank found something and left is not repeated.
CaseResult merged(const Case& c, const std::vector<CaseResult>& of_ranks);

}  // namespace attnmux::conformance
