// What `attnmux score` reads: a text, or packed token sequences with their images.
//
//   ScoreInput input = read_score_tokens("batch.safetensors");
//
// Pure but for reading files, any thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "attnmux/mask.h"
#include "models/nn/causal_lm.h"

namespace attnmux {

struct ScoreInput {
  at::Tensor input_ids;     // [tokens] int64
  at::Tensor position_ids;  // [tokens] int64, or [3, tokens] of a model with M-RoPE; undefined: as the model counts
  at::Tensor labels;        // [tokens] int64, shifted: labels[i] is what token i predicts; -100: nothing
  std::vector<Range> documents;             // token ranges, in order; padding lies between them
  AttnMaskSpec mask;                        // causal within documents, unless replaced
  at::Tensor pixel_values = {};             // [patches, values of a patch]; undefined: no images
  std::vector<ImageGrid> image_grids = {};  // in the order of their tokens
  std::string file = {};                    // where it was read, for messages

  // Tokens of documents and of the padding between them, in order.
  std::vector<int64_t> seqlens() const;
};

// The text as one document, without special tokens around it. Throws Error(kBadFile) for empty or invalid text.
ScoreInput read_score_text(const std::string& model_dir, const std::string& text_file);

// Tensors of a safetensors file: input_ids [tokens] int64, and optionally cu_seqlens [documents + 1] (where each
// document ends), cu_seqlens_padded (where each begins, when they are padded), position_ids and labels (shifted), all
// as above, and for a model that reads images pixel_values with image_grid_thw [images, 3] int64 (frames, height and
// width in patches). Throws Error(kBadFile) naming file, tensor, expected and found, also for a tensor of another name.
ScoreInput read_score_tokens(const std::string& tokens_file);

}  // namespace attnmux
