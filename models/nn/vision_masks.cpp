#include "models/nn/vision_masks.h"

#include <algorithm>

#include "attnmux/error.h"
#include "attnmux/mask_builders.h"
#include "models/nn/image_grid.h"

namespace attnmux {

std::string vision_mask_key(bool full_layer) { return full_layer ? "vision" : "vision.window"; }

void arm_images(StepContext& step, const ModelConfig& config, const std::vector<ImageGrid>& grids) {
  if (grids.empty()) return;
  if (!config.vision) {
    throw Error(ErrorCode::kInvalidArgument,
                std::to_string(grids.size()) + " images for " + config.architecture + ", which reads text alone");
  }
  const VisionConfig& vision = *config.vision;
  const auto has = [&](bool full) {
    return std::find(vision.full_layers.begin(), vision.full_layers.end(), full) != vision.full_layers.end();
  };
  if (has(true)) step.arm(vision_mask_key(true), varlen_mask(frame_seqlens(grids), MaskType::kFull));
  if (has(false)) {
    const WindowOrder order = order_by_windows(grids, vision.spatial_merge_size, vision.merged_window);
    step.arm(vision_mask_key(false), varlen_mask(order.seqlens, MaskType::kFull));
  }
}

}  // namespace attnmux
