#include "models/nn/layer_masks.h"

#include <algorithm>

#include "attnmux/mask_window.h"

namespace attnmux {

std::string mask_key(LayerType type) { return type == LayerType::kFull ? "language" : "language.sliding"; }

AttentionUse use_of(LayerType type, const AttentionUse& use) {
  if (type == LayerType::kFull) return use;
  AttentionUse sliding = use;
  sliding.masks = within_window(use.masks);
  sliding.empty_rows = use.empty_rows || use.masks.has(MaskFamily::kArbitrary);
  return sliding;
}

std::vector<KeyedMask> layer_masks(const ModelConfig& config, const AttnMaskSpec& batch) {
  const auto has = [&](LayerType type) {
    return std::find(config.layer_types.begin(), config.layer_types.end(), type) != config.layer_types.end();
  };
  std::vector<KeyedMask> masks;
  if (has(LayerType::kFull)) masks.push_back({mask_key(LayerType::kFull), batch});
  if (has(LayerType::kSliding)) {
    masks.push_back({mask_key(LayerType::kSliding), within_window(batch, config.sliding_window.value())});
  }
  return masks;
}

void arm_layers(StepContext& step, const ModelConfig& config, const AttnMaskSpec& batch) {
  for (const KeyedMask& entry : layer_masks(config, batch)) step.arm(entry.key, entry.mask);
}

void arm_layers(StepContext& step, const ModelConfig& config, const AgreedPlan& batch) {
  const DistAttnPlan& plan = batch.plan();
  for (const KeyedMask& entry : layer_masks(config, plan.mask())) {
    step.arm(entry.key, entry.mask == plan.mask() ? batch : AgreedPlan(batch.group(), plan.with_mask(entry.mask)));
  }
}

}  // namespace attnmux
