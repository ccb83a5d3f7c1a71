// Why is the loss not a number? Finds the place and stops the run.
#pragma once

#include <cstdint>

#include "models/data/packing.h"
#include "models/train/train_step.h"

namespace attnmux {

// Runs the batch forward once more and looks at every module's output. Throws Error(kNonFinite) naming the step, the
// first module with a value that is not finite, and a parameter of it that is the cause, if there is one.
[[noreturn]] void throw_non_finite_loss(const TrainState& state, const PackedBatch& batch, int64_t step_number,
                                        double loss);

// Throws Error(kNonFinite) naming the step and the first parameter whose gradient is not finite.
[[noreturn]] void throw_non_finite_gradient(const TrainState& state, int64_t step_number, double norm);

}  // namespace attnmux
