// One rank's share of a sequence: what prepare_llm_batch makes of tokens and mask.
//
//   LlmBatch batch = prepare_llm_batch({.input_ids = ids}, *mesh.cp, {.dispatch = {.chunk_size = 512}}, plans);
//   StepContext step(table, cache, {.training = true});
//   step.arm("language", batch.plan);
//   hidden = model.forward(batch.input(), step, {});
//
// Collective over the group that shares the sequence: every rank passes the whole of it. With one rank the tensors come
// back as they are.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "attnmux/distributed_attend.h"
#include "attnmux/plan_cache.h"
#include "models/nn/causal_lm.h"

namespace attnmux {

struct LlmSequence {
  at::Tensor input_ids;              // [tokens] int64
  at::Tensor position_ids;           // [tokens] int64, [3, tokens] for M-RoPE; undefined: 0, 1, 2, ...
  at::Tensor labels;                 // [tokens] int64, shifted; undefined: none
  std::optional<AttnMaskSpec> mask;  // tokens x tokens; nothing: causal
  at::Tensor inputs_embeds = {};     // [tokens, hidden], instead of input_ids; gradients flow back into it
};

struct LlmBatchOptions {
  DispatchOptions dispatch;  // cp is the group's size; a sequence shorter than chunk_size is one chunk
  OverlapOptions overlap;    // kAutoStages: as the cost model of the cache chooses for `size`
  AttentionSize size;        // of the model's attention
};

struct LlmBatch {
  at::Tensor input_ids;      // [own tokens] int64; undefined where the sequence has embeddings
  at::Tensor inputs_embeds;  // [own tokens, hidden]; undefined where it has ids
  at::Tensor position_ids;   // [own tokens] or [3, own tokens] int64, as in the whole sequence
  at::Tensor labels;         // [own tokens] int64, kIgnoredLabel in padding; undefined where the sequence has none
  AgreedPlan plan;           // of the whole sequence

  ModelInput input() const {
    return {.input_ids = input_ids, .position_ids = position_ids, .inputs_embeds = inputs_embeds};
  }
};

// Throws Error(kInvalidArgument) naming got and expected: a mask of another length, tensors of another length than
// input_ids or inputs_embeds, both of them or neither, no tokens; and what planning throws. Error(kRankDisagreement)
// where ranks bring different masks.
LlmBatch prepare_llm_batch(const LlmSequence& sequence, CpGroup& group, const LlmBatchOptions& options,
                           PlanCache& plans);

}  // namespace attnmux
