// One rank's part of a packed sequence in a forward pass of a run, whether it trains, evaluates or looks for a value
// that is not finite.
//
//   StepContext step(run.table, run.cache, {.training = true});
//   LlmBatch share = share_of(sequence, run, step, forward);
//   at::Tensor hidden = run.model.forward(share.input(), step, forward);
#pragma once

#include "models/data/packing.h"
#include "models/data/vlm_batch.h"
#include "models/train/run_context.h"

namespace attnmux {

// Reads the sequence's images, runs the vision tower on them, and arms `step` with the masks of all layers. Collective
// over the ranks that share the sequence.
LlmBatch share_of(const PackedBatch& sequence, const RunContext& run, StepContext& step, const ForwardOptions& forward);

}  // namespace attnmux
