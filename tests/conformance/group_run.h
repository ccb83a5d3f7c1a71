// Runs the cases of a group of ranks.
//
//   CaseResult result = run_group_on_threads(parse_case("group/check=casts,cp=3"));      // the group that is built in
//   run_group_on_processes({.plugin = file, .id = "mpi", .seconds = 60}, cases, results);
//
// A plugin's ranks are processes under mpirun (mpirun_launch.h); the calling process loads nothing. Neighbouring cases
// with the same number of ranks share a launch; a case of the family faults has one of its own, and behind a case that
// did not pass a new one begins. A rank that ends, is silent or prints without end is the result of the case in which
// that happened. No process outlives the call, nor this process.
#pragma once

#include <string>
#include <vector>

#include "conformance/case.h"
#include "conformance/case_result.h"

namespace attnmux::conformance {

struct GroupSubject {
  std::string plugin;
  std::string id;
  double seconds = 60;  // that the ranks may be silent
};

// Appends a result for each case, in their order, and one for a launch that did not end well behind its last case.
// Throws Error(kUsage) where there is no mpirun.
void run_group_on_processes(const GroupSubject& group, const std::vector<std::string>& cases,
                            std::vector<CaseResult>& results);

// By a process that may end in it.
CaseResult run_group_on_threads(const Case& c);

}  // namespace attnmux::conformance
