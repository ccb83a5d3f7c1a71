// The masks of a language model's layers: full layers take the batch's mask, sliding ones what a window leaves of it.
//
//   arm_layers(step, model.config(), batch.plan);       // before model.forward(input, step, {})
//
// Pure but for arming the step; any thread.
#pragma once

#include <string>
#include <vector>

#include "attnmux/distributed_attend.h"
#include "attnmux/mask.h"
#include "attnmux/step_context.h"
#include "models/io/model_config.h"
#include "models/nn/attention_use.h"

namespace attnmux {

// "language", "language.sliding": what a layer's attention module names as its mask.
std::string mask_key(LayerType type);

// What a run asks of modules in such layers.
AttentionUse use_of(LayerType type, const AttentionUse& use);

struct KeyedMask {
  std::string key;
  AttnMaskSpec mask;
};

// One for each kind of layer that the model has.
std::vector<KeyedMask> layer_masks(const ModelConfig& config, const AttnMaskSpec& batch);

void arm_layers(StepContext& step, const ModelConfig& config, const AttnMaskSpec& batch);
// Over a group: `batch` is the plan of the batch's mask. Every layer finds its tokens where that plan put them.
void arm_layers(StepContext& step, const ModelConfig& config, const AgreedPlan& batch);

}  // namespace attnmux
