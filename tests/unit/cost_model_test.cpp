#include "attnmux/cost_model.h"

#include <gtest/gtest.h>

#include <limits>

#include "attnmux/mask_builders.h"
#include "attnmux/plan_cache.h"
#include "expect_error.h"

namespace attnmux {
namespace {

constexpr double kFree = std::numeric_limits<double>::infinity();  // bytes a second of what costs nothing

// An operation or a byte takes a second, so that times can be counted by hand.
const CostModel kSlow{.flops_per_s = 4,
                      .backward_flops_per_s = 4,
                      .call_s = 0,
                      .row_bytes_per_s = kFree,
                      .backward_row_bytes_per_s = kFree,
                      .key_bytes_per_s = kFree,
                      .backward_key_bytes_per_s = kFree,
                      .bytes_per_s = 16,
                      .latency_s = 3,
                      .source = "test"};
const AttentionSize kOne{.heads_q = 1, .heads_kv = 1, .head_dim = 1, .dtype = DType::kFloat64};

TEST(CostModel, CountsOperationsRowsAndBytes) {
  const AttentionSize shape{.heads_q = 8, .heads_kv = 2, .head_dim = 64, .dtype = DType::kBFloat16};
  EXPECT_EQ(shape.bytes_per_token(), 2 * 2 * 64 * 2);
  EXPECT_EQ(shape.gradient_bytes_per_token(), 2 * 2 * 64 * 4) << "in fp32";
  const CostModel model{.flops_per_s = 1e6,
                        .backward_flops_per_s = 5e5,
                        .call_s = 0.25,
                        .row_bytes_per_s = 1e4,
                        .backward_row_bytes_per_s = 2e4,
                        .key_bytes_per_s = 3e4,
                        .backward_key_bytes_per_s = 4e4,
                        .bytes_per_s = 1e3,
                        .latency_s = 0.5,
                        .source = "test"};
  const double row_bytes = 3 * 8 * 64 * 4, key_bytes = 7 * 2 * 64 * 2 * 4, operations = 4 * 10 * 8 * 64;
  const PartSize part{.area = 10, .rows = 3, .keys = 7};
  EXPECT_DOUBLE_EQ(model.part_s(part, shape, Pass::kForward),
                   0.25 + row_bytes / 1e4 + key_bytes / 3e4 + operations / 1e6);
  EXPECT_DOUBLE_EQ(model.part_s(part, shape, Pass::kBackward),
                   0.25 + row_bytes / 2e4 + key_bytes / 4e4 + 2.5 * operations / 5e5);
  EXPECT_EQ(model.part_s({.rows = 3, .keys = 7}, shape, Pass::kForward), 0) << "a part without pairs is not computed";
  EXPECT_DOUBLE_EQ(model.exchange_s(10, shape, Cargo::kKeys), 0.5 + 10 * 512 / 1e3);
  EXPECT_DOUBLE_EQ(model.exchange_s(10, shape, Cargo::kGradients), 0.5 + 10 * 1024 / 1e3);
  EXPECT_EQ(model.exchange_s(0, shape, Cargo::kKeys), 0);
}

void expect_spans(const std::vector<TimelineSpan>& spans, const std::vector<TimelineSpan>& expected) {
  ASSERT_EQ(spans.size(), expected.size());
  for (size_t i = 0; i < spans.size(); ++i) {
    EXPECT_EQ(spans[i].stage, expected[i].stage) << i;
    EXPECT_EQ(spans[i].exchange, expected[i].exchange) << i;
    EXPECT_EQ(spans[i].gradients, expected[i].gradients) << i;
    EXPECT_DOUBLE_EQ(spans[i].begin_s, expected[i].begin_s) << i;
    EXPECT_DOUBLE_EQ(spans[i].end_s, expected[i].end_s) << i;
  }
}

const RankWork kTwoStages{.host_area = 10,
                          .host_rows = 1,
                          .stages = {{.area = 2, .tokens_received = 4, .tokens_sent = 1},
                                     {.area = 5, .tokens_received = 1, .tokens_sent = 6}}};

// max(comm_0, host) + max(comm_1, calc_0) + calc_1
TEST(CostModel, ExchangesHideBehindAttention) {
  expect_spans(timeline(kTwoStages, kSlow, kOne, Pass::kForward), {{0, true, false, 0, 3 + 4},
                                                                   {-1, false, false, 0, 10},
                                                                   {1, true, false, 10, 10 + 3 + 6},
                                                                   {0, false, false, 10, 12},
                                                                   {1, false, false, 19, 24}});
}

// One link: gradients of a part leave when the keys asked for before them have arrived, and a part waits for the
// gradients of the part two before it. The last ones travel behind all.
TEST(CostModel, GradientsTravelBehindThePartThatMadeThem) {
  expect_spans(timeline(kTwoStages, kSlow, kOne, Pass::kBackward), {{0, true, false, 0, 7},
                                                                    {-1, false, false, 0, 25},
                                                                    {1, true, false, 25, 34},
                                                                    {0, false, false, 25, 30},
                                                                    {0, true, true, 34, 41},
                                                                    {1, false, false, 34, 46.5},
                                                                    {1, true, true, 46.5, 55.5}});
}

TEST(CostModel, KeptKeysAreAtHand) {
  RankWork kept = kTwoStages;
  kept.keeps_remote_keys = true;
  expect_spans(timeline(kept, kSlow, kOne, Pass::kBackward), {{-1, false, false, 0, 25},
                                                              {0, false, false, 25, 30},
                                                              {0, true, true, 30, 37},
                                                              {1, false, false, 30, 42.5},
                                                              {1, true, true, 42.5, 51.5}});
  EXPECT_EQ(timeline(kept, kSlow, kOne, Pass::kForward).size(), 5u) << "forward receives them as ever";
}

TEST(CostModel, BackwardGoesThroughItsOwnStages) {
  RankWork own = kTwoStages;
  own.backward_stages = {{.area = 7, .tokens_received = 5, .tokens_sent = 7}};
  EXPECT_EQ(timeline(own, kSlow, kOne, Pass::kForward).size(), 5u);
  expect_spans(
      timeline(own, kSlow, kOne, Pass::kBackward),
      {{0, true, false, 0, 10}, {-1, false, false, 0, 25}, {0, false, false, 25, 42.5}, {0, true, true, 42.5, 52.5}});
}

TEST(CostModel, WhatIsNotOverlappedSlowsAttention) {
  CostModel busy = kSlow;
  busy.overlap = 0.25;
  expect_spans(timeline(kTwoStages, busy, kOne, Pass::kForward), {{0, true, false, 0, 7},
                                                                  {-1, false, false, 0, 10 + 0.75 * 7},
                                                                  {1, true, false, 15.25, 24.25},
                                                                  {0, false, false, 15.25, 15.25 + 2 + 0.75 * 2},
                                                                  {1, false, false, 24.25, 29.25}});
}

TEST(CostModel, PredictsTheSlowestRank) {
  // Chunk areas 3, 7, 11, 15: 18 pairs on each of two ranks. Rank 0 holds chunks 0 and 3 and needs 4 tokens.
  const DistAttnPlan plan(causal_mask(8, 8), {.cp = 2, .chunk_size = 2}, {});
  const Prediction p = predict(plan, kSlow, kOne);
  EXPECT_EQ(p.one_rank_s, 36 * 3.5);
  // Forward: host 10, remote 8, keys 3 + 4. Backward: 25, 20, 3 + 4, and the gradients' 3 + 4 behind them.
  EXPECT_EQ(p.slowest_rank, 0);
  EXPECT_DOUBLE_EQ(p.step_s, 18 + 45 + 7);
  EXPECT_DOUBLE_EQ(p.exposed_s, 7);
  EXPECT_DOUBLE_EQ(p.speedup, 126.0 / 70);
  EXPECT_DOUBLE_EQ(p.efficiency, 63.0 / 70);
  CostModel slow_link = kSlow;
  slow_link.latency_s = 100;
  EXPECT_DOUBLE_EQ(predict(plan, slow_link, kOne).exposed_s, (104 - 10) + (104 - 25) + 104);
  EXPECT_EQ(predict(DistAttnPlan(AttnMaskSpec({}, 4, 4), {.cp = 2, .chunk_size = 2}, {}), kSlow, kOne).speedup, 1);
}

TEST(CostModel, ChoosesStagesByLatencyAndBandwidth) {
  const AttnMaskSpec mask = causal_mask(8192, 8192);
  const DispatchOptions dispatch{.cp = 8, .chunk_size = 64};
  const AttentionSize shape;
  const CostModel slow_start{.flops_per_s = 1e12,
                             .backward_flops_per_s = 1e12,
                             .bytes_per_s = 1e12,
                             .latency_s = 1,
                             .source = "each exchange costs a second"};
  EXPECT_EQ(choose_overlap(mask, dispatch, kAutoOverlap, slow_start, shape), OverlapOptions());
  EXPECT_EQ(
      choose_overlap(varlen_mask({64, 64}, MaskType::kCausal), {.cp = 2, .chunk_size = 64}, kAutoOverlap, {}, shape),
      OverlapOptions());
  const OverlapOptions given{.forward = {.stages = 7}, .backward = {.stages = 3}};
  EXPECT_EQ(choose_overlap(mask, dispatch, given, {}, shape), given) << "nothing is to be chosen";
  // From exchanges that take four times as long as attention to a quarter of it.
  for (const double bytes_per_s : {5e8, 2e9, 8e9}) {
    const CostModel model{.flops_per_s = 1e12,
                          .backward_flops_per_s = 1e12,
                          .call_s = 1e-6,
                          .row_bytes_per_s = 1e11,
                          .backward_row_bytes_per_s = 1e11,
                          .key_bytes_per_s = 1e11,
                          .backward_key_bytes_per_s = 1e11,
                          .bytes_per_s = bytes_per_s,
                          .latency_s = 1e-6,
                          .source = "test"};
    const auto predicted = [&](const OverlapOptions& options) {
      return predict(DistAttnPlan(mask, dispatch, options), model, shape);
    };
    const OverlapOptions chosen = choose_overlap(mask, dispatch, kAutoOverlap, model, shape);
    const OverlapOptions backward =
        choose_overlap(mask, dispatch, {.forward = {.stages = 5}, .backward = {.stages = kAutoStages}}, model, shape);
    EXPECT_EQ(backward.forward, StageOptions{.stages = 5});
    EXPECT_EQ(backward.backward, chosen.backward) << "passes are chosen one by one";
    const OverlapOptions kept =
        choose_overlap(mask, dispatch, {.forward = {.stages = kAutoStages}, .keep_remote_keys = true}, model, shape);
    EXPECT_EQ(kept.forward, kept.backward);
    EXPECT_LE(predicted(kept).step_s, predicted({.forward = kept.forward}).step_s)
        << "keys that were kept cost nothing";
    EXPECT_GT(chosen.backward.stages, 1);
    const Prediction best = predicted(chosen);
    for (const int64_t stages : {1, 2, 4, 8, 16, 32, 64, 128}) {
      for (const double growth : {0.25, 0.5, 1.0, 2.0, 4.0}) {
        if (growth != 1 && stages > 8) continue;
        const Prediction other = predicted({.forward = {.stages = stages, .growth = growth}});
        const auto what = [&](const StageOptions& options) {
          return std::to_string(stages) + " stages that grow " + std::to_string(growth) + " times, beside " +
                 std::to_string(options.stages) + " and " + std::to_string(options.growth) + " at " +
                 std::to_string(bytes_per_s) + " bytes a second";
        };
        EXPECT_LE(best.forward_s, 1.03 * other.forward_s) << what(chosen.forward);
        EXPECT_LE(best.backward_s, 1.03 * other.backward_s) << what(chosen.backward);
      }
    }
  }
}

TEST(CostModel, CalibrationIsReadStrictly) {
  const CostModel model = cost_model_from_json(to_json(kSlow));
  EXPECT_EQ(model.flops_per_s, 4);
  EXPECT_EQ(model.bytes_per_s, 16);
  EXPECT_EQ(model.latency_s, 3);
  EXPECT_EQ(model.source, "test");
  EXPECT_EQ(model.row_bytes_per_s, kFree);
  EXPECT_EQ(model.backward_row_bytes_per_s, kFree);
  EXPECT_EQ(model.key_bytes_per_s, kFree);
  EXPECT_EQ(model.backward_key_bytes_per_s, kFree);
  const CostModel measured{.flops_per_s = 1,
                           .backward_flops_per_s = 2,
                           .call_s = 3,
                           .row_bytes_per_s = 4,
                           .backward_row_bytes_per_s = 7,
                           .key_bytes_per_s = 8,
                           .backward_key_bytes_per_s = 9,
                           .bytes_per_s = 5,
                           .latency_s = 6,
                           .overlap = 0.5,
                           .source = "all"};
  const CostModel read = cost_model_from_json(to_json(measured));
  EXPECT_EQ(read.backward_flops_per_s, 2);
  EXPECT_EQ(read.call_s, 3);
  EXPECT_EQ(read.row_bytes_per_s, 4);
  EXPECT_EQ(read.backward_row_bytes_per_s, 7);
  EXPECT_EQ(read.key_bytes_per_s, 8);
  EXPECT_EQ(read.backward_key_bytes_per_s, 9);
  EXPECT_EQ(read.overlap, 0.5);
  // What an older file does not tell costs nothing, and backward runs at forward's rate.
  const CostModel older = cost_model_from_json(R"({"flops_per_s": 7, "bytes_per_s": 1, "latency_s": 1, "source": ""})");
  EXPECT_EQ(older.backward_flops_per_s, 7);
  EXPECT_EQ(older.call_s, 0);
  EXPECT_EQ(older.row_bytes_per_s, kFree);
  EXPECT_EQ(older.backward_row_bytes_per_s, kFree);
  EXPECT_EQ(older.key_bytes_per_s, kFree);
  EXPECT_EQ(older.backward_key_bytes_per_s, kFree);
  const CostModel of_forward = cost_model_from_json(
      R"({"flops_per_s": 7, "bytes_per_s": 1, "latency_s": 1, "row_bytes_per_s": 3, "key_bytes_per_s": 2, "source": ""})");
  EXPECT_EQ(of_forward.backward_row_bytes_per_s, 3);
  EXPECT_EQ(of_forward.backward_key_bytes_per_s, 2);
  EXPECT_EQ(older.overlap, 1);
  expect_error(ErrorCode::kConfig, {"bytes_per_s"},
               [] { cost_model_from_json(R"({"flops_per_s": 1, "latency_s": 1, "source": ""})"); });
  expect_error(ErrorCode::kConfig, {"flops_per_s", "above 0"},
               [] { cost_model_from_json(R"({"flops_per_s": 0, "bytes_per_s": 1, "latency_s": 1, "source": ""})"); });
  expect_error(ErrorCode::kConfig, {"latency_s", "number"},
               [] { cost_model_from_json(R"({"flops_per_s": 1, "bytes_per_s": 1, "latency_s": "1", "source": ""})"); });
  expect_error(ErrorCode::kConfig, {"overlap", "0 to 1"}, [] {
    cost_model_from_json(R"({"flops_per_s": 1, "bytes_per_s": 1, "latency_s": 1, "source": "", "overlap": 1.5})");
  });
  expect_error(ErrorCode::kConfig, {"did you mean \"call_s\""}, [] {
    cost_model_from_json(R"({"flops_per_s": 1, "bytes_per_s": 1, "latency_s": 1, "source": "", "calls_s": 1})");
  });
}

TEST(PlanCache, ReturnsThePlanOfAnEqualMask) {
  PlanCache cache({}, 2);
  const DispatchOptions dispatch{.cp = 2, .chunk_size = 4};
  const auto plan = cache.plan(causal_mask(16, 16), dispatch, {.forward = {.stages = 2}}, {});
  // The same pairs, written down in two slices.
  const AttnMaskSpec same({{{0, 8}, {0, 8}, MaskType::kCausal}, {{8, 16}, {0, 16}, MaskType::kCausal}}, 16, 16);
  EXPECT_EQ(cache.plan(same, dispatch, {.forward = {.stages = 2}}, {}), plan);
  EXPECT_NE(cache.plan(same, dispatch, {}, {}), plan);
  EXPECT_EQ(cache.hits(), 1);
  EXPECT_EQ(cache.misses(), 2);
  EXPECT_EQ(cache.plan(same, dispatch, {.forward = {.stages = 2}}, {}), plan);
  EXPECT_NE(cache.plan(same, dispatch, kAutoOverlap, {}), plan);  // the plan of one stage was used longest ago
  EXPECT_EQ(cache.plan(same, dispatch, {.forward = {.stages = 2}}, {}), plan);
  cache.plan(same, dispatch, {}, {});
  EXPECT_EQ(cache.misses(), 4);
  EXPECT_NE(cache.plan(same, {.cp = 2, .chunk_size = 2}, {.forward = {.stages = 2}}, {}), plan);
}

}  // namespace
}  // namespace attnmux
