#include "models/train/non_finite.h"

#include <c10/core/GradMode.h>

#include <string>

#include "attnmux/error.h"
#include "models/nn/layer_masks.h"

namespace attnmux {
namespace {

constexpr char kRemedy[] =
    "\nNothing was updated in this step and the last checkpoint is kept. Usual causes: a learning rate that is too "
    "high, too little warm-up, or weights that were broken before.";

bool is_finite(const at::Tensor& tensor) { return at::isfinite(tensor).all().item<bool>(); }

std::string first_non_finite_module(const TrainState& state, const PackedBatch& batch) {
  const at::NoGradGuard no_grad;
  std::string found;
  StepContext step(state.table, state.cache, {.training = false});
  arm_layers(step, state.model.config(), batch.mask);
  const ModuleObserver observe = [&](const std::string& path, const at::Tensor& output) {
    if (found.empty() && !is_finite(output)) found = path;
  };
  state.model.forward({batch.input_ids, batch.position_ids}, step, {.observe = observe});
  step.finish();
  return found.empty() ? "lm_head" : found;
}

std::string broken_parameter(const TrainState& state, const std::string& module) {
  for (const std::string& name : state.model.parameters().names()) {
    if (name.starts_with(module + ".") && !is_finite(state.model.parameters().at(name))) {
      return "; its parameter " + name + " is not finite";
    }
  }
  return "";
}

}  // namespace

void throw_non_finite_loss(const TrainState& state, const PackedBatch& batch, int64_t step_number, double loss) {
  const std::string module = first_non_finite_module(state, batch);
  throw Error(ErrorCode::kNonFinite, "step " + std::to_string(step_number) + ": the loss is " + std::to_string(loss) +
                                         "; the first module whose output is not finite is " + module +
                                         broken_parameter(state, module) + kRemedy);
}

void throw_non_finite_gradient(const TrainState& state, int64_t step_number, double norm) {
  const std::string name = state.optimizer.first_non_finite_gradient();
  throw Error(ErrorCode::kNonFinite, "step " + std::to_string(step_number) + ": the gradient norm is " +
                                         std::to_string(norm) + "; the first gradient that is not finite is that of " +
                                         (name.empty() ? "none alone, their sum overflows" : name) + kRemedy);
}

}  // namespace attnmux
