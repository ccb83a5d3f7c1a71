#include "models/train/train_step.h"

#include <ATen/ATen.h>

#include <chrono>
#include <cmath>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "models/nn/linear_cross_entropy.h"
#include "models/train/gradient_sum.h"
#include "models/train/non_finite.h"
#include "models/train/sequence_share.h"

namespace attnmux {
namespace {

using Clock = std::chrono::steady_clock;

// All sequences of one step. Every rank draws them all, so that each knows how many tokens the loss is the mean of.
struct GlobalBatch {
  std::vector<PackedBatch> sequences;
  int64_t tokens = 0;
  int64_t valid_tokens = 0;

  // Those of one replica of the model.
  std::span<const PackedBatch> of_replica(const DeviceMesh& mesh) const {
    const size_t count = sequences.size() / mesh.shape.dp;
    return std::span(sequences).subspan(mesh.dp_rank * count, count);
  }
};

GlobalBatch next_batch(DocumentPacker& data, int64_t batch_size) {
  GlobalBatch batch;
  for (int64_t i = 0; i < batch_size; ++i) {
    batch.sequences.push_back(*data.next());
    batch.tokens += batch.sequences.back().input_ids.size(0);
    batch.valid_tokens += batch.sequences.back().valid_tokens;
  }
  return batch;
}

// What a step adds up over sequences and ranks.
struct StepSums {
  double loss = 0;
  double area = 0;
  double largest_area = 0;                                 // of a rank
  std::set<std::pair<std::string, std::string>> backends;  // backend, attention module

  void add(double sequence_loss, const AgreedPlan& plan, const ExecutionLedger& ledger) {
    loss += sequence_loss;
    area += static_cast<double>(plan.plan().dispatch().area_of(plan.group().rank()));
    for (const LedgerEntry& entry : ledger.entries()) backends.emplace(entry.backend, entry.module);
  }

  void over_ranks(CpGroup& world) {
    at::Tensor sums = at::tensor({loss, area}, at::kDouble), largest = at::tensor({area}, at::kDouble);
    world.all_reduce(sums, ReduceOp::kSum)->wait();
    world.all_reduce(largest, ReduceOp::kMax)->wait();
    loss = sums[0].item<double>();
    area = sums[1].item<double>();
    largest_area = largest[0].item<double>();
  }

  double balance(int32_t ranks) const { return area == 0 ? 1 : largest_area * ranks / area; }

  std::map<std::string, int64_t> modules_by_backend() const {
    std::map<std::string, int64_t> counts;
    for (const auto& [backend, module] : backends) ++counts[backend];
    return counts;
  }
};

}  // namespace

StepMetrics train_step(TrainState& state, int64_t step_number) {
  const Clock::time_point start = Clock::now();
  const CausalLm& model = state.run.model;
  CpGroup& world = *state.run.mesh.world;

  // Data: the whole batch; this replica of the model takes its sequences.
  const GlobalBatch batch = next_batch(state.data, state.batch_size);
  const std::span<const PackedBatch> sequences = batch.of_replica(state.run.mesh);

  StepSums sums;
  for (const PackedBatch& sequence : sequences) {
    // This rank's tokens, those of images made by the vision tower. The masks go with the step, never through a global.
    StepContext step(state.run.table, state.run.cache,
                     {.training = true, .trace = state.run.trace, .trace_rank = world.rank()});
    const ForwardOptions forward{.activation_checkpointing = state.activation_checkpointing};
    const LlmBatch share = share_of(sequence, state.run, step, forward);

    // Forward: every attention module asks `step` to attend. The loss adds up to the mean over the whole batch.
    const at::Tensor hidden = model.forward(share.input(), step, forward);
    const at::Tensor loss = linear_cross_entropy(hidden, model.lm_head(), share.labels, batch.valid_tokens);

    // Backward, and the proof that each module used its mask in both directions; only then may anything change.
    loss.backward();
    step.finish();
    sums.add(loss.item<double>(), share.plan, step.ledger());
  }

  // Over all ranks: from here on every one of them holds the same numbers.
  sums.over_ranks(world);
  if (!std::isfinite(sums.loss)) throw_non_finite_loss(state.run, sequences, step_number, sums.loss);
  sum_gradients(model.parameters(), world);

  // Update: clip by the global norm, then AdamW.
  const double norm = state.optimizer.gradient_norm();
  if (!std::isfinite(norm)) throw_non_finite_gradient(state.optimizer, step_number, norm);
  const double lr = learning_rate(state.schedule, step_number);
  state.optimizer.step(lr, clip_factor(norm, state.grad_clip));
  state.optimizer.clear_gradients();

  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return {.step = step_number,
          .loss = sums.loss,
          .tokens = batch.tokens,
          .tokens_per_s = static_cast<double>(batch.tokens) / seconds,
          .grad_norm = norm,
          .lr = lr,
          .peak_bytes = peak_resident_bytes(),
          .balance = sums.balance(world.size()),
          .backends = sums.modules_by_backend(),
          .heldout_loss = std::nullopt};
}

}  // namespace attnmux
