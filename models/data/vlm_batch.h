// One rank's share of a sequence with images: what prepare_vlm_batch makes of tokens, images and mask.
//
//   StepContext step(table, cache, {.training = true});
//   LlmBatch batch = prepare_vlm_batch(model, {.input_ids = ids, .labels = labels, .pixel_values = pixels,
//                                              .image_grids = grids}, *mesh.cp, step, {}, plans);
//   arm_layers(step, model.config(), batch.plan);
//   hidden = model.forward(batch.input(), step, {});
//   linear_cross_entropy(hidden, model.lm_head(), batch.labels, valid_tokens).backward();     // of the whole sequence
//   step.finish();
//
// The vision tower runs first, on its own masks, then its tokens are merged into the embeddings of the whole sequence,
// and embeddings, positions and labels are dispatched as prepare_llm_batch does. Gradients flow back the same way: when
// those of the ranks are added up (sum_gradients), each parameter has what one rank alone would give it, the tower's
// and the embedding's too. Every rank has a gradient for every parameter, with images or without.
//
// Collective over the group that shares the sequence, and so is backward: every rank passes the whole sequence. With
// one rank nothing is dispatched or padded. A text model's sequence goes straight to prepare_llm_batch.
#pragma once

#include <optional>
#include <vector>

#include "models/data/llm_batch.h"
#include "models/nn/causal_lm.h"

namespace attnmux {

struct VlmSequence {
  at::Tensor input_ids;                     // [tokens] int64, image_token_id for each token of an image
  at::Tensor position_ids = {};             // [3, tokens] int64; undefined: those of one document (mrope_positions)
  at::Tensor labels = {};                   // [tokens] int64, shifted; undefined: none
  std::optional<AttnMaskSpec> mask = {};    // tokens x tokens; nothing: causal
  at::Tensor pixel_values = {};             // [patches, values of a patch]; undefined: no images
  std::vector<ImageGrid> image_grids = {};  // in the order of their tokens
};

struct VlmBatchOptions {
  LlmBatchOptions sharding;
  // Each image goes through the tower of one rank, dealt out by work, and its tokens to all. Otherwise every rank runs
  // all images: the same numbers, without an exchange, and every rank sees the same modules' outputs.
  bool share_images = true;
  ForwardOptions forward;  // of tower and embedding
};

// Arms `step` with the masks of the images that this rank runs. REQUIRES: `step` is armed with nothing else yet;
// `group` and `step` live until backward has run. Throws, before the tower runs and on every rank alike, what
// check_input() (models/nn/check_input.h) and mrope_positions() throw; Error(kRankDisagreement) where ranks bring
// different images; then what prepare_llm_batch() throws.
LlmBatch prepare_vlm_batch(const CausalLm& model, const VlmSequence& sequence, CpGroup& group, StepContext& step,
                           const VlmBatchOptions& options, PlanCache& plans);

}  // namespace attnmux
