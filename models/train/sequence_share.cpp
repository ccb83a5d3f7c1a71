#include "models/train/sequence_share.h"

#include "models/nn/layer_masks.h"
#include "models/nn/mrope_positions.h"

namespace attnmux {

LlmBatch share_of(const PackedBatch& sequence, const RunContext& run, StepContext& step,
                  const ForwardOptions& forward) {
  const ModelConfig& config = run.model.config();
  const std::vector<ImageGrid> grids = grids_of(sequence.images);
  const VlmSequence whole{.input_ids = sequence.input_ids,
                          .position_ids = config.vision
                                              ? mrope_positions(config, sequence.input_ids, sequence.seqlens, grids)
                                              : sequence.position_ids,
                          .labels = sequence.labels,
                          .mask = sequence.mask,
                          .pixel_values = load_pixels(sequence.images),
                          .image_grids = grids};
  LlmBatch share = prepare_vlm_batch(run.model, whole, *run.mesh.cp, step,
                                     {.sharding = run.sharding, .forward = forward}, *run.plans);
  arm_layers(step, config, share.plan);
  return share;
}

}  // namespace attnmux
