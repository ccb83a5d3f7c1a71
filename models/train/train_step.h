// One training step, stage by stage: the function that everything else is there for.
//
//   TrainState state{.run = run, .optimizer = optimizer, .data = packer, .schedule = schedule, .batch_size = 4};
//   StepMetrics metrics = train_step(state, step);
//
// Every rank of the run's mesh takes the step at the same time, with a model, an optimizer and a packer of its own.
#pragma once

#include <cstdint>

#include "models/data/packing.h"
#include "models/train/adamw.h"
#include "models/train/lr_schedule.h"
#include "models/train/metrics.h"
#include "models/train/run_context.h"

namespace attnmux {

// What a step works on; the run owns it.
struct TrainState {
  RunContext run;
  AdamW& optimizer;
  DocumentPacker& data;  // at the same position on every rank
  LrSchedule schedule;
  int64_t batch_size = 1;  // sequences a step; a multiple of the mesh's dp
  double grad_clip = 0;    // 0: none
  bool activation_checkpointing = false;
};

// Takes the next batch and updates the model; the metrics are those of all ranks, on every rank. Throws before anything
// is updated: Error(kNonFinite) naming the step and the first module whose output (or parameter whose gradient) is not
// finite, the same on every rank; Error(kMaskNotConsumed) when an attention module did not use the mask that the step
// was armed with; Error(kCommError) when another rank failed.
StepMetrics train_step(TrainState& state, int64_t step_number);

}  // namespace attnmux
