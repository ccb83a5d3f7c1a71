// Images dealt out over ranks, whole, so that the vision tower's work is spread evenly.
//
//   std::vector<std::vector<int64_t>> images = deal_images(*config.vision, grids, group.size());
//   images[group.rank()];      // indices of its images, ascending
//
// A function of its arguments alone: every rank deals alike, without an exchange. Any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "models/io/model_config.h"
#include "models/nn/causal_lm.h"

namespace attnmux {

// Products of the tower for one image: a forward pass in multiplications and additions.
double tower_flops(const VisionConfig& vision, const ImageGrid& grid);

// The costliest image first (of equals the earlier), each to the rank with the least work so far (of equals the lower).
// Ranks may go without.
std::vector<std::vector<int64_t>> deal_images(const VisionConfig& vision, const std::vector<ImageGrid>& grids,
                                              int32_t ranks);

}  // namespace attnmux
