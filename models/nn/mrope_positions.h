// Positions of text and images in time, height and width, for M-RoPE.
//
//   at::Tensor position_ids = mrope_positions(config, input_ids, {100, 200}, grids);     // [3, 300]
//
// transformers 5.23.0, models/qwen2_5_vl/modeling_qwen2_5_vl.py, get_rope_index. Pure function, any thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "models/io/model_config.h"
#include "models/nn/causal_lm.h"

namespace attnmux {

// Each document counts from 0. A text token advances all three; an image's tokens have their frame, row and column,
// counted from where the image begins, and the text behind it goes on after the larger of its sides. Throws
// Error(kInvalidArgument) where an image's tokens do not stand together in one document or there are more or fewer
// images than runs of image tokens ask for.
at::Tensor mrope_positions(const ModelConfig& config,
                           const at::Tensor& input_ids,          // [tokens] int64
                           const std::vector<int64_t>& seqlens,  // of the documents, adding up to tokens
                           const std::vector<ImageGrid>& grids);

}  // namespace attnmux
