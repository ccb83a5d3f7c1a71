// Compares one result with the truth: per head and tile of 64 tokens, against the error of a plain implementation in
// the same dtype.
//
//   compare({.name = "out", .got = out, .want = truth.out, .low = plain.out, .empty_rows = rows}, result);
//
// Of each tile: the largest error stays within twice the plain implementation's and four roundings of the terms
// (bound.max); so does the root of the summed squares (bound.frobenius), where many small errors that all point one way
// show; no error exceeds an absolute limit (bound.cap), however bad the plain implementation is. All three leave room
// for numbers below the smallest normal one of fp32 (fp64 for fp64) to be taken for 0 on the way: an implementation
// that flushes them is right. Rows that attend nothing are compared by equality. A failure prints how many elements are
// wrong, the first and the worst.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "conformance/case_result.h"
#include "conformance/truth.h"

namespace attnmux::conformance {

struct Comparison {
  std::string name;        // "out"
  at::Tensor got;          // [tokens, heads, ...] on the CPU
  TruthTensor want;        // same shape
  at::Tensor low;          // of the plain implementation, same shape
  DType dtype;             // in whose roundings it is measured
  double cap;              // absolute limit of an error, as a share of the largest magnitude
  at::Tensor empty_rows;   // [tokens] bool; undefined: none of the rows is special
  Check empty_check;       // what rows without keys are held to
  double empty_value = 0;  // which is this value
};

// A value of `want` or `low` that is not finite outside empty_rows is an error of the suite.
void compare(const Comparison& comparison, CaseResult& result);

// For results in a dtype, and for an lse of inputs in it: one that is rounded to 16 bits is within the limit; whether
// it is good enough is what lse.merge asks.
double cap_of(DType dtype);
double lse_cap_of(DType dtype);

// Half a unit in the last place of 1.
double unit_roundoff(DType dtype);

// Of the type that scores and weights of inputs in this dtype are computed in.
double smallest_normal(DType dtype);

}  // namespace attnmux::conformance
