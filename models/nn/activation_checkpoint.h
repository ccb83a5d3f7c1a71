// Trades memory for time: a layer's intermediate tensors are dropped after forward and computed again in backward.
//
//   hidden = activation_checkpoint(step, hidden, [&](const at::Tensor& x) { return layer.forward(x, step); });
//
// The second run is counted as recomputation in the step's ledger (StepContext::Recompute).
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "attnmux/step_context.h"

namespace attnmux {

// REQUIRES: `run` gives the same values each time, and what it refers to lives until backward has run. Gradients of
// parameters that `run` uses are accumulated into their .grad(). Where no gradient is wanted, `run` just runs.
at::Tensor activation_checkpoint(StepContext& step, const at::Tensor& input,
                                 std::function<at::Tensor(const at::Tensor&)> run);

}  // namespace attnmux
