// What each family asks of a case. One function each; none throws for what a backend does wrong.
#pragma once

#include "conformance/case.h"
#include "conformance/case_result.h"
#include "conformance/subject.h"

namespace attnmux::conformance {

// REQUIRES: the case came through parse_case(), which knows the checks of every family, and is none of a group's
// (rank_cases.h), or it is one of family meta.
void run_case(const Subject& subject, const Case& c, CaseResult& result);

void run_meta(const Subject& subject, const Case& c, CaseResult& result);
void run_query(const Subject& subject, const Case& c, CaseResult& result);
void run_numbers(const Subject& subject, const Case& c,
                 CaseResult& result);  // fwd, bwd, lse, empty, gqa, dtype, honesty
void run_strides(const Subject& subject, const Case& c, CaseResult& result);
void run_determinism(const Subject& subject, const Case& c, CaseResult& result);
void run_streams(const Subject& subject, const Case& c, CaseResult& result);
void run_concurrency(const Subject& subject, const Case& c, CaseResult& result);
void run_memory(const Subject& subject, const Case& c, CaseResult& result);
void run_errors(const Subject& subject, const Case& c, CaseResult& result);
void run_cp(const Subject& subject, const Case& c, CaseResult& result);

// Which results of a call are compared with the truth.
enum : unsigned { kOut = 1, kLseTensor = 2, kGrads = 4 };

// Calls forward (and backward, for kGrads) on the setup's tensors, moved to the device, and compares.
void run_and_compare(const Subject& subject, const Setup& setup, unsigned which, Refusal refusal, CaseResult& result);
// `in` holds the same numbers as setup.in, with other strides.
void run_and_compare(const Subject& subject, const Setup& setup, const Inputs& in, unsigned which, Refusal refusal,
                     CaseResult& result);
// Results that are there are compared: undefined tensors are skipped.
struct Results {
  at::Tensor out, lse, dq, dk, dv;
};
void compare_results(const Setup& setup, const Results& got, CaseResult& result);

}  // namespace attnmux::conformance
