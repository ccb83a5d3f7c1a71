#include "models/data/vlm_batch.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "attnmux/agreement.h"
#include "attnmux/dispatch.h"
#include "models/data/deal_images.h"
#include "models/nn/check_input.h"
#include "models/nn/mrope_positions.h"
#include "models/nn/vision_masks.h"

namespace attnmux {
namespace {

at::Tensor positions_of(const ModelConfig& config, const VlmSequence& sequence) {
  const at::Tensor &positions = sequence.position_ids, &ids = sequence.input_ids;
  if (positions.defined() || !ids.defined() || ids.dim() != 1) return positions;
  if (!config.vision) return at::arange(ids.size(0), at::kLong);
  return mrope_positions(config, ids, {ids.size(0)}, sequence.image_grids);
}

// Ranks with other images would exchange other tokens.
void expect_same_images(CpGroup& group, const std::vector<ImageGrid>& grids, bool share_images) {
  Hasher hasher;
  hasher.add(share_images);
  for (const ImageGrid& grid : grids) {
    for (const int64_t size : {grid.frames, grid.height, grid.width}) hasher.add(size);
  }
  expect_agreement(group, hasher.finish(), "the images of the sequence", "Give every rank the whole sequence");
}

// Images put side by side, from some of a sequence's.
struct Images {
  at::Tensor pixel_values;  // [patches, values of a patch]
  std::vector<ImageGrid> grids;
};

Images pick(const VlmSequence& sequence, const std::vector<int64_t>& indices) {
  std::vector<int64_t> begins{0};
  for (const ImageGrid& grid : sequence.image_grids) {
    begins.push_back(begins.back() + grid.frames * grid.height * grid.width);
  }
  Images images;
  std::vector<at::Tensor> parts;
  for (const int64_t index : indices) {
    images.grids.push_back(sequence.image_grids[index]);
    parts.push_back(sequence.pixel_values.slice(0, begins[index], begins[index + 1]));
  }
  if (!parts.empty()) images.pixel_values = at::cat(parts);
  return images;
}

// Of each rank the image tokens that it makes, numbered over all images.
std::vector<std::vector<Range>> token_ranges(const std::vector<std::vector<int64_t>>& images_of_rank,
                                             const std::vector<ImageGrid>& grids, int64_t merge) {
  std::vector<Range> of_image;
  int64_t begin = 0;
  for (const ImageGrid& grid : grids) {
    const int64_t end = begin + grid.frames * (grid.height / merge) * (grid.width / merge);
    of_image.push_back({begin, end});
    begin = end;
  }
  std::vector<std::vector<Range>> of_rank;
  for (const std::vector<int64_t>& images : images_of_rank) {
    std::vector<Range>& ranges = of_rank.emplace_back();
    for (const int64_t image : images) ranges.push_back(of_image[image]);
  }
  return of_rank;
}

// [image tokens, hidden] of all images, on every rank.
at::Tensor run_tower(const CausalLm& model, const VlmSequence& sequence, CpGroup& group, StepContext& step,
                     const VlmBatchOptions& options) {
  const VisionConfig& vision = *model.config().vision;
  const std::vector<ImageGrid>& grids = sequence.image_grids;
  const auto run = [&](const at::Tensor& pixel_values, const std::vector<ImageGrid>& of) {
    arm_images(step, model.config(), of);
    return model.image_tokens(pixel_values, of, step, options.forward);
  };
  expect_same_images(group, grids, options.share_images);
  if (!options.share_images || group.size() == 1 || grids.empty()) return run(sequence.pixel_values, grids);

  const std::vector<std::vector<int64_t>> images_of_rank = deal_images(vision, grids, group.size());
  const Images own = pick(sequence, images_of_rank[group.rank()]);
  return gather_tokens(run(own.pixel_values, own.grids), token_ranges(images_of_rank, grids, vision.spatial_merge_size),
                       group);
}

}  // namespace

LlmBatch prepare_vlm_batch(const CausalLm& model, const VlmSequence& sequence, CpGroup& group, StepContext& step,
                           const VlmBatchOptions& options, PlanCache& plans) {
  LlmSequence merged{.input_ids = sequence.input_ids,
                     .position_ids = positions_of(model.config(), sequence),
                     .labels = sequence.labels,
                     .mask = sequence.mask};
  check_input(model.config(), {.input_ids = merged.input_ids,
                               .position_ids = merged.position_ids,
                               .pixel_values = sequence.pixel_values,
                               .image_grids = sequence.image_grids});
  if (!model.config().vision) return prepare_llm_batch(merged, group, options.sharding, plans);

  const at::Tensor image_tokens = run_tower(model, sequence, group, step, options);
  merged.inputs_embeds = model.embed(merged.input_ids, image_tokens, options.forward);
  merged.input_ids = at::Tensor();
  return prepare_llm_batch(merged, group, options.sharding, plans);
}

}  // namespace attnmux
