#include "attnmux/plan_simulation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "attnmux/mask_builders.h"
#include "attnmux/plan_report.h"

namespace attnmux {
namespace {

const CostModel kModel{.flops_per_s = 4,
                       .backward_flops_per_s = 4,
                       .call_s = 0.5,
                       .row_bytes_per_s = 16,
                       .backward_row_bytes_per_s = 16,
                       .key_bytes_per_s = 32,
                       .backward_key_bytes_per_s = 32,
                       .bytes_per_s = 16,
                       .latency_s = 1,
                       .source = "test"};
const AttentionSize kOne{.heads_q = 1, .heads_kv = 1, .head_dim = 1, .dtype = DType::kFloat64};

// The two other schemes, pair by pair: rank r of n owns blocks r and 2n - 1 - r.
struct ByHand {
  double ring = 0, all_gather = 0;
};
ByHand by_hand(const AttnMaskSpec& mask, int64_t n) {
  const auto owner = [&](int64_t token, int64_t total) {
    int64_t block = 0;
    while ((block + 1) * total / (2 * n) <= token) ++block;
    return block < n ? block : 2 * n - 1 - block;
  };
  std::vector<std::vector<int64_t>> area(n, std::vector<int64_t>(n, 0)), attending = area;
  std::vector<int64_t> keys(n, 0), rows(n, 0);
  for (int64_t k = 0; k < mask.total_k(); ++k) ++keys[owner(k, mask.total_k())];
  for (int64_t q = 0; q < mask.total_q(); ++q) {
    const int64_t rank = owner(q, mask.total_q());
    ++rows[rank];
    std::set<int64_t> attended;  // ranks
    for (int64_t k = 0; k < mask.total_k(); ++k) {
      if (!mask.allowed(q, k)) continue;
      ++area[rank][owner(k, mask.total_k())];
      attended.insert(owner(k, mask.total_k()));
    }
    for (const int64_t of : attended) ++attending[rank][of];
  }
  const double hop = 1.0 + static_cast<double>(*std::max_element(keys.begin(), keys.end()));
  ByHand slowest;
  for (int64_t rank = 0; rank < n; ++rank) {
    double ring = 0, gather = 0, calc = 0;
    const auto others = static_cast<double>(mask.total_k() - keys[rank]);
    const auto call = [](int64_t rows, int64_t keys) {
      return 0.5 + static_cast<double>(rows) * 4 / 16 + static_cast<double>(keys) * 8 / 32;
    };
    for (const double pass : {1.0, 2.5}) {
      const double moved = pass == 1.0 ? 1 : 2;
      for (int64_t i = 0; i < n; ++i) {
        const int64_t of = (rank - i + n) % n;
        const auto pairs = static_cast<double>(area[rank][of]);
        const double part = pairs > 0 ? call(attending[rank][of], keys[of]) + pass * pairs : 0;
        ring += i + 1 < n ? std::max(part, 1 + moved * (hop - 1)) : part;
        calc += pass * pairs;
      }
      if (moved == 2 && n > 1) ring += hop;             // gradients of the last block go home
      gather += others > 0 ? moved * (1 + others) : 0;  // keys, then gradients
      if (calc > 0) gather += call(rows[rank], mask.total_k());
    }
    slowest.ring = std::max(slowest.ring, ring);
    slowest.all_gather = std::max(slowest.all_gather, gather + calc);
  }
  return slowest;
}

TEST(PlanSimulation, RingAndAllGatherAreAsCountedPairByPair) {
  const AttnMaskSpec masks[] = {causal_mask(40, 40), varlen_mask({7, 20, 3, 30}, MaskType::kCausal),
                                sliding_window_mask({50}, {.left = 9, .right = 2, .sink_tokens = 3}), full_mask(13, 29),
                                AttnMaskSpec({}, 16, 16)};
  for (const AttnMaskSpec& mask : masks) {
    for (const int64_t ranks : {1, 2, 3, 5, 8}) {
      const std::vector<SchemeStep> steps =
          simulate_schemes(mask, ranks, {.chunk_size = 2}, kAutoOverlap, kModel, kOne);
      ASSERT_EQ(steps.size(), 3u);
      const ByHand expected = by_hand(mask, ranks);
      EXPECT_NEAR(steps[1].step_s, expected.ring, 1e-9) << mask.area() << " pairs, " << ranks << " ranks";
      EXPECT_NEAR(steps[2].step_s, expected.all_gather, 1e-9) << mask.area() << " pairs, " << ranks << " ranks";
    }
  }
}

TEST(PlanSimulation, TheOwnSchemeIsItsPlansPrediction) {
  const AttnMaskSpec mask = causal_mask(4096, 4096);
  const std::vector<SchemeStep> steps = simulate_schemes(mask, 4, {.chunk_size = 1024}, kAutoOverlap, kModel, kOne);
  EXPECT_EQ(steps[0].scheme, "attnmux");
  EXPECT_EQ(steps[0].chunk_size, 128) << "8 chunks a rank";
  const DistAttnPlan plan(mask, {.cp = 4, .chunk_size = 128},
                          {.forward = {.stages = steps[0].stages, .growth = steps[0].growth},
                           .backward = {.stages = steps[0].backward_stages, .growth = steps[0].backward_growth}});
  EXPECT_DOUBLE_EQ(steps[0].step_s, predict(plan, kModel, kOne).step_s);
  EXPECT_DOUBLE_EQ(steps[0].efficiency * 4, steps[0].speedup);
  EXPECT_EQ(steps[0].balance, plan.dispatch().balance());
  const OverlapOptions kept{.forward = kAutoOverlap.forward, .keep_remote_keys = true};
  EXPECT_LE(simulate_schemes(mask, 4, {.chunk_size = 1024}, kept, kModel, kOne)[0].step_s, steps[0].step_s);
}

TEST(PlanSimulation, DocumentsOnOwnRanksMoveNothing) {
  const std::vector<SchemeStep> steps = simulate_schemes(varlen_mask(std::vector<int64_t>(32, 64), MaskType::kCausal),
                                                         4, {.chunk_size = 64}, kAutoOverlap, kModel, kOne);
  EXPECT_EQ(steps[0].tokens_received, 0);
  EXPECT_EQ(steps[0].stages, 0);
  EXPECT_LT(steps[0].efficiency, 1) << "a call on each rank";
  EXPECT_GT(steps[0].efficiency, 0.97);
  EXPECT_EQ(steps[1].tokens_received, 32 * 64 * 3 / 4);
  EXPECT_LT(steps[1].efficiency, 1);
}

// The same link and rate for all: only what a plan moves, and when, can make the difference.
TEST(PlanSimulation, TheOwnSchemeIsNotBehindTheOthers) {
  const int64_t tokens = int64_t{1} << 18;
  std::vector<int64_t> documents;
  for (int64_t rest = tokens, i = 0; rest > 0; rest -= documents.back(), ++i) {
    documents.push_back(std::min<int64_t>(rest, 100 + 977 * (i * i % 83)));
  }
  const AttnMaskSpec masks[] = {causal_mask(tokens, tokens), full_mask(tokens, tokens),
                                varlen_mask(documents, MaskType::kCausal),
                                sliding_window_mask({tokens}, {.left = 4095, .right = 0})};
  for (const AttnMaskSpec& mask : masks) {
    for (const int64_t ranks : {8, 64, 512}) {
      for (const double bytes_per_s : {1e10, 5e10, 4e11}) {
        CostModel model;
        model.bytes_per_s = bytes_per_s;
        const std::vector<SchemeStep> steps = simulate_schemes(mask, ranks, {}, kAutoOverlap, model, {});
        for (const SchemeStep& other : {steps[1], steps[2]}) {
          EXPECT_LE(steps[0].step_s, 1.005 * other.step_s)
              << other.scheme << " of " << mask.area() << " pairs on " << ranks << " ranks at " << bytes_per_s
              << " bytes a second; " << steps[0].stages << " stages that grow " << steps[0].growth << " times";
        }
      }
    }
  }
}

TEST(PlanPictures, GrowthHasALineForEachMask) {
  std::vector<PlanGrowth> rows;
  for (const int64_t size : {128, 256, 512}) {
    rows.push_back({"causal", size, 0.01 * static_cast<double>(size)});
    rows.push_back({"documents <3>", 2 * size, 0.04 * static_cast<double>(size)});
  }
  const std::string svg = growth_to_svg(rows);
  for (const char* part : {"n log n", ">causal</text>", "documents &lt;3&gt;", "causal, 512: 5.12 ms", ">1 ms</text>",
                           ">100 ms</text>", ">512</text>"}) {
    EXPECT_NE(svg.find(part), std::string::npos) << part;
  }
  size_t points = 0;
  for (size_t at = svg.find("<circle"); at != std::string::npos; at = svg.find("<circle", at + 1)) ++points;
  EXPECT_EQ(points, rows.size());
  EXPECT_EQ(svg.find("nan"), std::string::npos);
}

}  // namespace
}  // namespace attnmux
