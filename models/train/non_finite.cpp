#include "models/train/non_finite.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "attnmux/error.h"
#include "models/train/sequence_share.h"

namespace attnmux {
namespace {

constexpr char kRemedy[] =
    "\nNothing was updated in this step and the last checkpoint is kept. Usual causes: a learning rate that is too "
    "high, too little warm-up, or weights that were broken before.";

bool is_finite(const at::Tensor& tensor) { return at::isfinite(tensor).all().item<bool>(); }

// Outputs of the sequences; they come in the same order on every rank.
NonFiniteWatch watch_outputs(const RunContext& run, std::span<const PackedBatch> sequences) {
  const at::NoGradGuard no_grad;
  NonFiniteWatch watch;
  const ForwardOptions forward{.observe = watch.observer()};
  for (const PackedBatch& sequence : sequences) {
    StepContext step(run.table, run.cache, {.training = false});
    const LlmBatch share = share_of(sequence, run, step, forward);
    run.model.forward(share.input(), step, forward);
    step.finish();
  }
  return watch;
}

struct Place {
  std::string module = kOutputModule;
  std::string rank;  // " on rank 2", where there are several
};

Place first_non_finite_place(const RunContext& run, std::span<const PackedBatch> sequences) {
  constexpr int64_t kNone = std::numeric_limits<int32_t>::max();
  CpGroup& world = *run.mesh.world;
  const NonFiniteWatch watch = watch_outputs(run, sequences);
  const int64_t here = watch.first().value_or(kNone);
  // Of all ranks the earliest output, of equal ones that of the lowest rank. There is a maximum, hence the sign.
  at::Tensor earliest = at::tensor({-(here * world.size() + world.rank())}, at::kLong);
  world.all_reduce(earliest, ReduceOp::kMax)->wait();
  const int64_t found = -earliest.item<int64_t>();
  if (found / world.size() == kNone) return {};
  return {watch.module(found / world.size()),
          world.size() == 1 ? "" : " on rank " + std::to_string(found % world.size())};
}

std::string broken_parameter(const ParameterStore& parameters, const std::string& module) {
  for (const std::string& name : parameters.names()) {
    if (name.starts_with(module + ".") && !is_finite(parameters.at(name))) {
      return "; its parameter " + name + " is not finite";
    }
  }
  return "";
}

}  // namespace

ModuleObserver NonFiniteWatch::observer() {
  return [this](const std::string& path, const at::Tensor& output) {
    if (!first_ && !is_finite(output)) first_ = std::ssize(modules_);
    modules_.push_back(path);
  };
}

std::string first_non_finite_text(const ParameterStore& parameters, const std::string& module,
                                  const std::string& where) {
  return "the first module whose output is not finite is " + module + where + broken_parameter(parameters, module);
}

void throw_non_finite_loss(const RunContext& run, std::span<const PackedBatch> sequences, int64_t step_number,
                           double loss) {
  const Place place = first_non_finite_place(run, sequences);
  throw Error(ErrorCode::kNonFinite,
              "step " + std::to_string(step_number) + ": the loss is " + std::to_string(loss) + "; " +
                  first_non_finite_text(run.model.parameters(), place.module, place.rank) + kRemedy);
}

void throw_non_finite_gradient(const AdamW& optimizer, int64_t step_number, double norm) {
  const std::string name = optimizer.first_non_finite_gradient();
  throw Error(ErrorCode::kNonFinite, "step " + std::to_string(step_number) + ": the gradient norm is " +
                                         std::to_string(norm) + "; the first gradient that is not finite is that of " +
                                         (name.empty() ? "none alone, their sum overflows" : name) + kRemedy);
}

}  // namespace attnmux
