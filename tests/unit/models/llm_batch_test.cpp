#include "models/data/llm_batch.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "attnmux/mask_builders.h"
#include "models/nn/linear_cross_entropy.h"
#include "tests/unit/expect_error.h"

namespace attnmux {
namespace {

at::Tensor count_from(int64_t first, int64_t tokens) { return at::arange(first, first + tokens, at::kLong); }

TEST(LlmBatch, TensorsAreSharedAlike) {
  const LlmSequence sequence{.input_ids = count_from(100, 21),
                             .position_ids = count_from(0, 21) % 7,
                             .labels = count_from(101, 21),
                             .mask = varlen_mask({7, 7, 7}, MaskType::kCausal)};
  std::vector<std::atomic<int>> owners(21);
  PlanCache plans;
  run_threads_group(3, {}, [&](CpGroup& group) {
    const LlmBatch batch = prepare_llm_batch(sequence, group, {.dispatch = {.chunk_size = 2}}, plans);
    EXPECT_EQ(batch.input_ids.size(0), batch.plan.plan().dispatch().tokens_of(group.rank()));
    for (int64_t i = 0; i < batch.input_ids.size(0); ++i) {
      const int64_t token = batch.input_ids[i].item<int64_t>() - 100;
      EXPECT_EQ(batch.position_ids[i].item<int64_t>(), token % 7);
      EXPECT_EQ(batch.labels[i].item<int64_t>(), token + 101);
      ++owners[token];
    }
  });
  for (const std::atomic<int>& owner : owners) EXPECT_EQ(owner, 1);
}

TEST(LlmBatch, OneRankGetsTheSequenceItself) {
  PlanCache plans;
  const LlmSequence sequence{.input_ids = count_from(5, 9)};
  const LlmBatch batch = prepare_llm_batch(sequence, *single_rank_group(), {}, plans);
  EXPECT_TRUE(batch.input_ids.is_same(sequence.input_ids));
  EXPECT_TRUE(at::equal(batch.position_ids, count_from(0, 9)));
  EXPECT_FALSE(batch.labels.defined());
  EXPECT_EQ(batch.plan.plan().mask(), causal_mask(9, 9));
}

TEST(LlmBatch, EmbeddingsAreSharedAsIdsAreAndGetTheirGradientBack) {
  const at::Tensor ids = count_from(0, 21), embeds = at::randn({21, 3}), weights = at::randn({21, 3});
  const at::Tensor axes = at::stack({ids, ids + 100, ids + 200});
  std::vector<at::Tensor> gradients(3);
  PlanCache plans;
  run_threads_group(3, {}, [&](CpGroup& group) {
    const LlmBatchOptions options{.dispatch = {.chunk_size = 2}};
    const LlmBatch by_ids = prepare_llm_batch({.input_ids = ids}, group, options, plans);
    const at::Tensor whole = embeds.clone().requires_grad_();
    const LlmBatch batch = prepare_llm_batch({.position_ids = axes, .inputs_embeds = whole}, group, options, plans);
    EXPECT_FALSE(batch.input_ids.defined());
    EXPECT_TRUE(at::equal(batch.input().inputs_embeds, embeds.index_select(0, by_ids.input_ids)));
    EXPECT_TRUE(at::equal(batch.position_ids, axes.index_select(1, by_ids.input_ids)));
    (batch.inputs_embeds * weights.index_select(0, by_ids.input_ids)).sum().backward();
    gradients[group.rank()] = whole.grad();
  });
  EXPECT_TRUE(at::equal(gradients[0] + gradients[1] + gradients[2], weights));
}

TEST(LlmBatch, PaddingPredictsNothing) {
  PlanCache plans;
  std::atomic<int64_t> tokens = 0, labels = 0;
  run_threads_group(2, {}, [&](CpGroup& group) {
    const LlmBatch batch = prepare_llm_batch({.input_ids = count_from(0, 10), .labels = count_from(1, 10)}, group,
                                             {.dispatch = {.chunk_size = 4, .pad = true}}, plans);
    tokens += batch.input_ids.size(0);
    labels += batch.labels.ne(kIgnoredLabel).sum().item<int64_t>();
  });
  EXPECT_EQ(tokens, 16);
  EXPECT_EQ(labels, 10);
}

TEST(LlmBatch, ARankWhoseLabelsAreAllMaskedAddsNothing) {
  const at::Tensor hidden = at::randn({12, 4}), weight = at::randn({30, 4});
  at::Tensor labels = count_from(3, 12);
  labels.narrow(0, 6, 6).fill_(kIgnoredLabel);
  const double whole = linear_cross_entropy(hidden, weight, labels, 6).item<double>();
  PlanCache plans;
  std::vector<double> losses(3);
  run_threads_group(3, {}, [&](CpGroup& group) {
    // Two chunks for three ranks: one rank has the labels, one has none, one has not even tokens.
    const LlmBatch batch = prepare_llm_batch({.input_ids = count_from(0, 12), .labels = labels}, group,
                                             {.dispatch = {.chunk_size = 6}}, plans);
    const at::Tensor own = hidden.index_select(0, batch.input_ids).requires_grad_();
    const at::Tensor w = weight.clone().requires_grad_();
    const at::Tensor loss = linear_cross_entropy(own, w, batch.labels, 6);
    loss.backward();
    losses[group.rank()] = loss.item<double>();
    EXPECT_TRUE(at::isfinite(own.grad()).all().item<bool>());
    EXPECT_TRUE(at::isfinite(w.grad()).all().item<bool>());
    if (losses[group.rank()] == 0) {
      EXPECT_EQ(at::abs(w.grad()).sum().item<double>(), 0);
    }
  });
  EXPECT_NEAR(losses[0] + losses[1] + losses[2], whole, 1e-5);
  EXPECT_EQ(std::count(losses.begin(), losses.end(), 0.0), 2);
}

TEST(LlmBatch, LengthsThatDoNotFitAreNamed) {
  PlanCache plans;
  const auto prepare = [&](const LlmSequence& sequence) {
    prepare_llm_batch(sequence, *single_rank_group(), {}, plans);
  };
  const at::Tensor ids = count_from(0, 8);
  expect_error(ErrorCode::kInvalidArgument, {"9 x 9", "8 tokens"},
               [&] { prepare({.input_ids = ids, .mask = causal_mask(9, 9)}); });
  expect_error(ErrorCode::kInvalidArgument, {"labels", "[7]", "8 tokens"},
               [&] { prepare({.input_ids = ids, .labels = count_from(0, 7)}); });
  expect_error(ErrorCode::kInvalidArgument, {"position_ids", "[2, 8]", "[3, tokens]", "8 tokens"}, [&] {
    prepare({.input_ids = count_from(0, 8), .position_ids = at::zeros({2, 8}, at::kLong)});
  });
  expect_error(ErrorCode::kInvalidArgument, {"both input_ids and inputs_embeds"}, [&] {
    prepare({.input_ids = count_from(0, 8), .inputs_embeds = at::zeros({8, 4})});
  });
  expect_error(ErrorCode::kInvalidArgument, {"position_ids", "8 tokens"},
               [&] { prepare({.input_ids = ids, .position_ids = count_from(0, 9)}); });
  expect_error(ErrorCode::kInvalidArgument, {"input_ids"}, [&] { prepare({}); });
}

TEST(LlmBatch, RanksThatBringDifferentMasksAreNamed) {
  PlanCache plans;
  expect_error(ErrorCode::kRankDisagreement, {"attention plan", "on rank 0", "on rank 1"}, [&] {
    run_threads_group(2, {}, [&](CpGroup& group) {
      prepare_llm_batch(
          {.input_ids = count_from(0, 8), .mask = varlen_mask({4 + group.rank(), 4 - group.rank()}, MaskType::kCausal)},
          group, {.dispatch = {.chunk_size = 2}}, plans);
    });
  });
}

}  // namespace
}  // namespace attnmux
