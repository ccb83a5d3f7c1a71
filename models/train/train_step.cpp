#include "models/train/train_step.h"

#include <c10/core/GradMode.h>

#include <chrono>
#include <cmath>
#include <set>
#include <string>

#include "attnmux/error.h"
#include "models/nn/layer_masks.h"
#include "models/nn/linear_cross_entropy.h"
#include "models/train/non_finite.h"

namespace attnmux {
namespace {

using Clock = std::chrono::steady_clock;

// Attention modules by the backend that ran them, from what the step has recorded.
std::map<std::string, int64_t> modules_by_backend(const ExecutionLedger& ledger) {
  std::set<std::pair<std::string, std::string>> pairs;
  for (const LedgerEntry& entry : ledger.entries()) pairs.emplace(entry.backend, entry.module);
  std::map<std::string, int64_t> counts;
  for (const auto& [backend, module] : pairs) ++counts[backend];
  return counts;
}

}  // namespace

StepMetrics train_step(TrainState& state, int64_t step_number) {
  const Clock::time_point start = Clock::now();

  // Data: one packed sequence; its mask goes with the step, never through a global.
  const PackedBatch batch = *state.data.next();
  StepContext step(state.table, state.cache, {.training = true});
  arm_layers(step, state.model.config(), batch.mask);

  // Forward: every attention module asks `step` to attend. The loss is the mean over the batch's valid labels.
  const ModelInput input{batch.input_ids, batch.position_ids};
  const at::Tensor hidden =
      state.model.forward(input, step, {.activation_checkpointing = state.activation_checkpointing});
  const at::Tensor loss = linear_cross_entropy(hidden, state.model.lm_head(), batch.labels, batch.valid_tokens);
  const double loss_value = loss.item<double>();
  if (!std::isfinite(loss_value)) throw_non_finite_loss(state, batch, step_number, loss_value);

  // Backward, and the proof that each module used its mask in both directions; only then may anything change.
  loss.backward();
  step.finish();

  // Update: clip by the global norm, then AdamW.
  const double norm = state.optimizer.gradient_norm();
  if (!std::isfinite(norm)) throw_non_finite_gradient(state, step_number, norm);
  const double lr = learning_rate(state.schedule, step_number);
  state.optimizer.step(lr, clip_factor(norm, state.grad_clip));
  state.optimizer.clear_gradients();

  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const int64_t tokens = batch.input_ids.size(0);
  return {.step = step_number,
          .loss = loss_value,
          .tokens = tokens,
          .tokens_per_s = static_cast<double>(tokens) / seconds,
          .grad_norm = norm,
          .lr = lr,
          .peak_bytes = peak_resident_bytes(),
          .balance = 1.0,  // one rank
          .backends = modules_by_backend(step.ledger()),
          .heldout_loss = std::nullopt};
}

}  // namespace attnmux
