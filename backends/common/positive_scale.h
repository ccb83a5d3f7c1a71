// A softmax_scale that ATen's fused kernels take: they look for the largest unscaled score, and some write -inf into
// the scores before they scale them, so that they want a positive one.
//
//   const PositiveScale scale = make_positive(args.softmax_scale);
//   kernel(scale.apply(q), ..., scale.softmax_scale);     // forward
//   dq = scale.apply(dq);                                 // backward
//
// The sign moves into q, and a scale of 0 becomes q = 0. Plain functions, any thread.
#pragma once

#include <ATen/core/Tensor.h>

namespace attnmux {

struct PositiveScale {
  double q_factor = 1;
  double softmax_scale = 1;
  at::Tensor apply(const at::Tensor& q) const { return q_factor == 1 ? q : q * q_factor; }
};

inline PositiveScale make_positive(double softmax_scale) {
  if (softmax_scale > 0) return {.softmax_scale = softmax_scale};
  if (softmax_scale < 0) return {.q_factor = -1, .softmax_scale = -softmax_scale};
  return {.q_factor = 0};
}

}  // namespace attnmux
