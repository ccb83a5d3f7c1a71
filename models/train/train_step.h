// One training step, stage by stage: the function that everything else is there for.
//
//   StepMetrics metrics = train_step({model, optimizer, data, table, cache, schedule, settings}, step);
#pragma once

#include <cstdint>
#include <memory>

#include "attnmux/attend.h"
#include "attnmux/selection.h"
#include "models/data/packing.h"
#include "models/nn/causal_lm.h"
#include "models/train/adamw.h"
#include "models/train/lr_schedule.h"
#include "models/train/metrics.h"

namespace attnmux {

// What a step works on; the run owns it.
struct TrainState {
  const CausalLm& model;
  AdamW& optimizer;
  DocumentPacker& data;
  std::shared_ptr<const SelectionTable> table;
  std::shared_ptr<PreparedCache> cache;
  LrSchedule schedule;
  double grad_clip = 0;  // 0: none
  bool activation_checkpointing = false;
};

// Takes the next batch and updates the model. Throws before anything is updated: Error(kNonFinite) naming the step and
// the first module whose output (or parameter whose gradient) is not finite, Error(kMaskNotConsumed) when an attention
// module did not use the mask that the step was armed with.
StepMetrics train_step(TrainState& state, int64_t step_number);

}  // namespace attnmux
