// Why is the loss not a number? Finds the place and stops the run.
#pragma once

#include <cstdint>
#include <span>

#include "models/data/packing.h"
#include "models/train/adamw.h"
#include "models/train/run_context.h"

namespace attnmux {

// Runs this replica's sequences forward once more and looks at every module's output. Collective over all ranks of the
// run, whichever of them has the value. Throws the same Error(kNonFinite) on every rank, naming the step, the first
// module with a value that is not finite, the rank where there are several, and a parameter of the module that is the
// cause, if there is one.
[[noreturn]] void throw_non_finite_loss(const RunContext& run, std::span<const PackedBatch> sequences,
                                        int64_t step_number, double loss);

// Throws Error(kNonFinite) naming the step and the first parameter whose gradient is not finite.
[[noreturn]] void throw_non_finite_gradient(const AdamW& optimizer, int64_t step_number, double norm);

}  // namespace attnmux
