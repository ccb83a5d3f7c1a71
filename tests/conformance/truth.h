// What attention is, for the suite: float64 on the CPU, straight from a matrix of allowed pairs; gradients by autograd.
//
//   Truth want = truth_of(allowed_matrix(c, mask), inputs, Gradients::kYes);
//
// Shares no code with masks, ranges or plans, and none with the explicit formulas of tests/oracle, which it is compared
// with by a test, beside finite differences and cases worked out by hand.
#pragma once

#include <ATen/core/Tensor.h>

#include "conformance/case_mask.h"
#include "conformance/values.h"

namespace attnmux::conformance {

// [sq, sk] bool, every pair asked for by the predicate.
at::Tensor allowed_matrix(const Case& c, const CaseMask& mask);

// Every element is a sum of products: what rounding errors of a good implementation are relative to, even where the
// terms cancel.
struct TruthTensor {
  at::Tensor value;      // float64
  at::Tensor magnitude;  // same shape: the sum of the terms' absolute values
  // Same shape: that sum with each weight exp(score - lse) multiplied by the terms of its score and by |lse|. An
  // error of either is a relative error of the weight.
  at::Tensor by_scores;
  // Same shape: how far the element moves where weights and products below the smallest normal number are taken for 0,
  // as many implementations do, in units of that number: the sum of the terms with a weight of 1 for every attended
  // pair.
  at::Tensor by_flushing;
};

struct Truth {
  TruthTensor out;         // [sq, hq, dv]
  TruthTensor lse;         // [sq, hq]
  TruthTensor dq, dk, dv;  // undefined without gradients
  at::Tensor empty_rows;   // [sq] bool: attends nothing
};

enum class Gradients : uint8_t { kNo, kYes };

Truth truth_of(const at::Tensor& allowed, const Inputs& inputs, Gradients gradients);

}  // namespace attnmux::conformance
