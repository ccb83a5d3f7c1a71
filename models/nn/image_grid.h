// Images as a vision tower sees them: grids of patches, cut into windows.
//
//   WindowOrder order = order_by_windows(grids, /*merge=*/2, /*window=*/4);
//   patches = permute(patches, order.index, /*unit=*/4);       // windows one behind another
//   step.arm("vision.window", varlen_mask(order.seqlens, MaskType::kFull));
//
// Patches come in the order of the Hugging Face processor: image by image, frame by frame, and in a frame by blocks of
// merge x merge patches, which become one token. Formulas: transformers 5.23.0, vision_utils.py. Pure functions.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "models/nn/causal_lm.h"

namespace attnmux {

// Row and column of each patch in its frame: [patches, 2] int64.
at::Tensor patch_positions(const std::vector<ImageGrid>& grids, int64_t merge);

// Patches of each frame, all images together: the documents of the tower's full layers.
std::vector<int64_t> frame_seqlens(const std::vector<ImageGrid>& grids);

// Tokens, that is blocks of merge x merge patches, brought into the order of windows of window x window tokens.
struct WindowOrder {
  at::Tensor index;              // [tokens] int64: which token stands there
  std::vector<int64_t> seqlens;  // patches of each window, none empty: the documents of the other layers
};
WindowOrder order_by_windows(const std::vector<ImageGrid>& grids, int64_t merge, int64_t window);

// x: [patches, ...], in groups of `unit` patches that stay together.
at::Tensor permute(const at::Tensor& x, const at::Tensor& index, int64_t unit);

}  // namespace attnmux
