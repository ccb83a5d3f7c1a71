// Runs the cases of a group of ranks, from inside a worker: on threads of this process for the group that is built in,
// else on processes that mpirun starts, each of which loads the plugin (rank_process.h).
//
//   run_group_cases({.id = "mpi", .in_plugin = true, .seconds = 60}, cases, [&](const CaseResult& result) { ... });
//
// Neighbouring cases with the same number of ranks share a launch; a case of the family faults has one of its own, and
// behind a case that did not pass a new one begins. A rank that ends, is silent or prints without end is the result of
// the case in which that happened. No process outlives the call, nor this process.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "conformance/case.h"
#include "conformance/case_result.h"

namespace attnmux::conformance {

struct GroupSubject {
  std::string id;
  bool in_plugin = false;  // the only plugin that the environment names; false: threads of this process
  double seconds = 60;     // that a rank may be silent
};

// Throws Error(kUsage) where in_plugin is set and there is no mpirun. The results come in the order of the cases.
void run_group_cases(const GroupSubject& group, const std::vector<Case>& cases,
                     const std::function<void(const CaseResult& result)>& done);

}  // namespace attnmux::conformance
