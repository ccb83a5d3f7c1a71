// The masks of a vision tower: full layers attend within an image's frame, the others within windows of it. They follow
// from the images alone; the language model's mask never reaches the tower.
//
//   arm_images(step, model.config(), input.image_grids);     // beside arm_layers(); without images it arms nothing
#pragma once

#include <string>
#include <vector>

#include "attnmux/step_context.h"
#include "models/io/model_config.h"
#include "models/nn/causal_lm.h"

namespace attnmux {

// "vision" of full layers, "vision.window" of the others.
std::string vision_mask_key(bool full_layer);

// Throws Error(kInvalidArgument) for images to a model without a vision tower.
void arm_images(StepContext& step, const ModelConfig& config, const std::vector<ImageGrid>& grids);

}  // namespace attnmux
