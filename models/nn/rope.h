// Rotary position embedding in Hugging Face's convention (rotate_half: the halves of a head form the pairs).
//
//   RopeTable table = make_rope_table(config.rope, head_dim, position_ids, at::kFloat);
//   q = apply_rope(q, table);
//
// Formulas: transformers 5.23, models/llama/modeling_llama.py and modeling_rope_utils.py.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "models/io/model_config.h"

namespace attnmux {

struct RopeTable {
  at::Tensor cos;  // [tokens, head_dim / 2], dtype of q and k
  at::Tensor sin;  // likewise
};

// Inverse frequencies [head_dim / 2] fp32, after the scaling that `rope.type` asks for.
at::Tensor rope_inverse_frequencies(const RopeConfig& rope, int64_t head_dim);

// cos and sin of position * frequency, computed in fp32 and rounded to `dtype`.
RopeTable make_rope_table(const RopeConfig& rope, int64_t head_dim,
                          const at::Tensor& position_ids,  // [tokens] int64
                          at::ScalarType dtype);

// M-RoPE: the pairs of a head are cut into sections, which turn with the token's place in time, height and width.
// Positions of one row stand for all three, which is plain rope. Throws Error(kInvalidArgument) for another shape.
// transformers 5.23, models/qwen2_5_vl/modeling_qwen2_5_vl.py.
RopeTable make_mrope_table(const RopeConfig& rope, int64_t head_dim,
                           const std::vector<int64_t>& sections,  // three, adding up to head_dim / 2
                           const at::Tensor& position_ids,        // [3, tokens] or [tokens] int64
                           at::ScalarType dtype);

// [x1, x2] -> [x1 cos - x2 sin, x2 cos + x1 sin] over the halves of each head. Differentiable in x. On the CPU in fp32
// one fused pass; elsewhere the reference.
at::Tensor apply_rope(const at::Tensor& x, const RopeTable& table);  // x: [tokens, heads, head_dim]

// The same from single ATen operators, any dtype and device: what apply_rope is tested against.
at::Tensor apply_rope_reference(const at::Tensor& x, const RopeTable& table);

}  // namespace attnmux
