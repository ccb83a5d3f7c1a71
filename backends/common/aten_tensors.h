// What the calls into ATen's fused kernels share: tensors that they can address, nothing to attend, rows without keys.
//
// Plain functions on tensors of any device, any thread.
#pragma once

#include <ATen/core/Tensor.h>

#include "attnmux/backend.h"

namespace attnmux {

// The tensor, or a copy where its inner stride is not 1 or its base or rows are not at multiples of 16 bytes: the
// kernels load 16 bytes at a time, and not all of them check.
at::Tensor aligned_rows(const at::Tensor& thd);

// [tokens, heads, ...] to the kernels' [1, heads, tokens, ...], without a copy; and back.
inline at::Tensor heads_first(const at::Tensor& thd) { return thd.transpose(0, 1).unsqueeze(0); }
inline at::Tensor tokens_first(const at::Tensor& bhsd) { return bhsd.squeeze(0).transpose(0, 1); }

// What forward and backward return where there is no query, key or head.
bool nothing_to_do(const at::Tensor& q, const at::Tensor& k);
ForwardResult empty_forward(const at::Tensor& q);
BackwardResult empty_backward(const BackwardArgs& args);

// `result` with out 0 and lse -inf in the rows of `empty` ([tokens_q] bool, or undefined: there are none), which each
// kernel answers in its own way.
ForwardResult with_empty_rows(ForwardResult result, const at::Tensor& empty);

// lse as the kernels' backward wants it, [heads, tokens] in one piece: +inf in rows without keys, for exp(score - lse)
// shall be 0 there.
at::Tensor kernel_lse(const at::Tensor& lse);

}  // namespace attnmux
