#include "attnmux/cost_model.h"

#include <gtest/gtest.h>

#include "attnmux/mask_builders.h"
#include "attnmux/plan_cache.h"
#include "expect_error.h"

namespace attnmux {
namespace {

// An operation or a byte takes a second, so that times can be counted by hand.
const CostModel kSlow{.flops_per_s = 4, .bytes_per_s = 16, .latency_s = 3, .source = "test"};
const AttentionSize kOne{.heads_q = 1, .heads_kv = 1, .head_dim = 1, .dtype = DType::kFloat64};

TEST(CostModel, CountsOperationsAndBytes) {
  const AttentionSize shape{.heads_q = 8, .heads_kv = 2, .head_dim = 64, .dtype = DType::kBFloat16};
  EXPECT_EQ(shape.bytes_per_token(), 2 * 2 * 64 * 2);
  const CostModel model{.flops_per_s = 1e6, .bytes_per_s = 1e3, .latency_s = 0.5, .source = "test"};
  EXPECT_DOUBLE_EQ(model.calc_s(10, shape, Pass::kForward), 4 * 10 * 8 * 64 / 1e6);
  EXPECT_DOUBLE_EQ(model.calc_s(10, shape, Pass::kBackward), 2.5 * 4 * 10 * 8 * 64 / 1e6);
  EXPECT_DOUBLE_EQ(model.comm_s(10, shape, Pass::kForward), 0.5 + 10 * 512 / 1e3);
  EXPECT_DOUBLE_EQ(model.comm_s(10, shape, Pass::kBackward), 0.5 + 2 * 10 * 512 / 1e3);
  EXPECT_EQ(model.comm_s(0, shape, Pass::kForward), 0);
}

// max(comm_0, host) + max(comm_1, calc_0) + calc_1
TEST(CostModel, ExchangesHideBehindAttention) {
  const RankWork work{.host_area = 10,
                      .stages = {{.area = 2, .tokens_received = 4, .tokens_sent = 1},
                                 {.area = 5, .tokens_received = 1, .tokens_sent = 6}}};
  const std::vector<TimelineSpan> spans = timeline(work, kSlow, kOne, Pass::kForward);
  ASSERT_EQ(spans.size(), 5u);
  const auto expect = [&](size_t i, int64_t stage, bool exchange, double begin, double end) {
    EXPECT_EQ(spans[i].stage, stage) << i;
    EXPECT_EQ(spans[i].exchange, exchange) << i;
    EXPECT_DOUBLE_EQ(spans[i].begin_s, begin) << i;
    EXPECT_DOUBLE_EQ(spans[i].end_s, end) << i;
  };
  expect(0, -1, false, 0, 10);
  expect(1, 0, true, 0, 3 + 4);
  expect(2, 0, false, 10, 12);
  expect(3, 1, true, 10, 10 + 3 + 6);
  expect(4, 1, false, 19, 24);
}

TEST(CostModel, PredictsTheSlowestRank) {
  // Chunk areas 3, 7, 11, 15: 18 pairs on each of two ranks. Rank 0 holds chunks 0 and 3 and needs 4 tokens.
  const DistAttnPlan plan(causal_mask(8, 8), {.cp = 2, .chunk_size = 2}, {});
  const Prediction p = predict(plan, kSlow, kOne);
  EXPECT_EQ(p.one_rank_s, 36 * 3.5);
  // Forward: host 10, remote 8, comm 3 + 4. Backward: 25, 20, 3 + 8.
  EXPECT_EQ(p.slowest_rank, 0);
  EXPECT_DOUBLE_EQ(p.step_s, 18 + 45);
  EXPECT_DOUBLE_EQ(p.exposed_s, 0);
  EXPECT_DOUBLE_EQ(p.speedup, 2);
  EXPECT_DOUBLE_EQ(p.efficiency, 1);
  CostModel slow_link = kSlow;
  slow_link.latency_s = 100;
  EXPECT_DOUBLE_EQ(predict(plan, slow_link, kOne).exposed_s, (104 - 10) + (108 - 25));
  EXPECT_EQ(predict(DistAttnPlan(AttnMaskSpec({}, 4, 4), {.cp = 2, .chunk_size = 2}, {}), kSlow, kOne).speedup, 1);
}

TEST(CostModel, ChoosesStagesByLatencyAndBandwidth) {
  const AttnMaskSpec mask = causal_mask(4096, 4096);
  const DispatchOptions dispatch{.cp = 8, .chunk_size = 64};
  const AttentionSize shape;
  const CostModel fast{.flops_per_s = 1e12, .bytes_per_s = 1e12, .latency_s = 1, .source = "test"};
  EXPECT_EQ(choose_stages(mask, dispatch, fast, shape), 1) << "each exchange costs a second";
  const CostModel even{.flops_per_s = 1e12, .bytes_per_s = 2e9, .latency_s = 1e-9, .source = "test"};
  const int64_t chosen = choose_stages(mask, dispatch, even, shape);
  EXPECT_GT(chosen, 1);
  const auto step = [&](int64_t stages) {
    return predict(DistAttnPlan(mask, dispatch, {.stages = stages}), even, shape).step_s;
  };
  EXPECT_LE(step(chosen), 0.99 * step(chosen / 2));
  EXPECT_GT(step(chosen * 2), 0.99 * step(chosen));
  EXPECT_EQ(choose_stages(varlen_mask({64, 64}, MaskType::kCausal), {.cp = 2, .chunk_size = 64}, even, shape), 1);
}

TEST(CostModel, CalibrationIsReadStrictly) {
  const CostModel model = cost_model_from_json(to_json(kSlow));
  EXPECT_EQ(model.flops_per_s, 4);
  EXPECT_EQ(model.bytes_per_s, 16);
  EXPECT_EQ(model.latency_s, 3);
  EXPECT_EQ(model.source, "test");
  expect_error(ErrorCode::kConfig, {"bytes_per_s"},
               [] { cost_model_from_json(R"({"flops_per_s": 1, "latency_s": 1, "source": ""})"); });
  expect_error(ErrorCode::kConfig, {"flops_per_s", "above 0"},
               [] { cost_model_from_json(R"({"flops_per_s": 0, "bytes_per_s": 1, "latency_s": 1, "source": ""})"); });
  expect_error(ErrorCode::kConfig, {"latency_s", "number"},
               [] { cost_model_from_json(R"({"flops_per_s": 1, "bytes_per_s": 1, "latency_s": "1", "source": ""})"); });
}

TEST(PlanCache, ReturnsThePlanOfAnEqualMask) {
  PlanCache cache({}, 2);
  const DispatchOptions dispatch{.cp = 2, .chunk_size = 4};
  const auto plan = cache.plan(causal_mask(16, 16), dispatch, 2, {});
  // The same pairs, written down in two slices.
  const AttnMaskSpec same({{{0, 8}, {0, 8}, MaskType::kCausal}, {{8, 16}, {0, 16}, MaskType::kCausal}}, 16, 16);
  EXPECT_EQ(cache.plan(same, dispatch, 2, {}), plan);
  EXPECT_NE(cache.plan(same, dispatch, 1, {}), plan);
  EXPECT_EQ(cache.hits(), 1);
  EXPECT_EQ(cache.misses(), 2);
  EXPECT_EQ(cache.plan(same, dispatch, 2, {}), plan);
  EXPECT_NE(cache.plan(same, dispatch, kAutoStages, {}), plan);  // the plan of one stage was used longest ago
  EXPECT_EQ(cache.plan(same, dispatch, 2, {}), plan);
  cache.plan(same, dispatch, 1, {});
  EXPECT_EQ(cache.misses(), 4);
  EXPECT_NE(cache.plan(same, {.cp = 2, .chunk_size = 2}, 2, {}), plan);
}

}  // namespace
}  // namespace attnmux
