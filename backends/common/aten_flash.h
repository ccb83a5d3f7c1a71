// ATen's fused attention kernel for the CPU on THD tensors, forward and backward: what sdpa and flash are made of.
//
//   ForwardResult result = aten_flash_forward(args, {.is_causal = true});
//
// Guards what the kernel itself does not: it takes a last dimension with a stride other than 1 for a contiguous one
// (silently wrong results), divides by zero without queries, keys or heads, returns NaN for a causal mask with a
// softmax_scale that is not positive, and in bf16 and fp16 hides an infinite score. Any thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "attnmux/backend.h"

namespace attnmux {

struct AtenFlashOptions {
  bool is_causal = false;  // top-left aligned: REQUIRES tokens_q == tokens_k
  // [tokens_q, tokens_k] in q's dtype, added to the scores: 0 or -inf. REQUIRES: not with is_causal.
  std::optional<at::Tensor> attn_mask = std::nullopt;
};

// REQUIRES: head_dim_v == head_dim. Rows whose attn_mask is all -inf get out 0 and, unlike the interface wants it,
// lse 0.
ForwardResult aten_flash_forward(const ForwardArgs& args, const AtenFlashOptions& options);

// lse may be -inf for rows without keys; their gradients are 0.
BackwardResult aten_flash_backward(const BackwardArgs& args, const AtenFlashOptions& options);

}  // namespace attnmux
