#include "attnmux/dispatch_plan.h"

#include <gtest/gtest.h>

#include "../common/print_range.h"
#include "attnmux/mask_builders.h"
#include "expect_error.h"
#include "published_masks.h"

namespace attnmux {
namespace {

using Chunks = std::vector<std::vector<int32_t>>;
using Ranges = std::vector<Range>;

constexpr DispatchSolver kAll[] = {DispatchSolver::kMinHeap, DispatchSolver::kIoAware, DispatchSolver::kSequential,
                                   DispatchSolver::kExact};

// Chunks of one query with these areas.
AttnMaskSpec mask_of_areas(const std::vector<int64_t>& areas) {
  std::vector<AttnSlice> slices;
  for (int64_t i = 0; i < std::ssize(areas); ++i) slices.push_back({.q = {i, i + 1}, .k = {0, areas[i]}});
  return AttnMaskSpec(slices, std::ssize(areas), 1000);
}

int64_t largest_area(const DispatchPlan& plan) {
  int64_t largest = 0;
  for (int32_t rank = 0; rank < plan.size(); ++rank) largest = std::max(largest, plan.area_of(rank));
  return largest;
}

TEST(DispatchPlan, PublishedRanks) {
  int checked = 0;
  for (const nlohmann::json& json : published_cases()["dispatch"]) {
    const DispatchPlan plan = plan_dispatch(published_mask(json), {.cp = json["cp"], .chunk_size = json["chunk"]});
    EXPECT_EQ(plan.chunks_of_rank, json["ranks"].get<Chunks>()) << json["name"];
    if (json.contains("chunk_area")) {
      EXPECT_EQ(plan.chunk_areas, json["chunk_area"].get<std::vector<int64_t>>()) << json["name"];
    }
    ++checked;
  }
  EXPECT_EQ(checked, 3);
}

TEST(DispatchPlan, PublishedBalance) {
  int checked = 0;
  for (const nlohmann::json& json : published_cases()["balance"]) {
    const AttnMaskSpec mask = mask_of_areas(json["workloads"]);
    const DispatchPlan heap = plan_dispatch(mask, {.cp = json["ranks"], .chunk_size = 1});
    for (const std::vector<int32_t>& chunks : heap.chunks_of_rank) EXPECT_EQ(chunks.size(), json["per_rank"]);
    EXPECT_EQ(largest_area(heap), json["min_heap_max"]);
    // The optimum is reached with one, two and three chunks a rank.
    const DispatchPlan exact =
        plan_dispatch(mask, {.cp = json["ranks"], .chunk_size = 1, .solver = DispatchSolver::kExact});
    EXPECT_EQ(largest_area(exact), json["optimal_max"]);
    ++checked;
  }
  EXPECT_EQ(checked, 1);
}

TEST(DispatchPlan, PublishedPadding) {
  int checked = 0;
  for (const nlohmann::json& json : published_cases()["pad"]) {
    const int64_t total = json["total"];
    const DispatchPlan plan =
        plan_dispatch(causal_mask(total, total), {.cp = json["cp"], .chunk_size = json["chunk"], .pad = true});
    EXPECT_EQ(plan.padding, json["pad"]) << json.dump();
    for (int32_t rank = 0; rank < plan.size(); ++rank)
      EXPECT_EQ(plan.tokens_of(rank), (total + plan.padding) / plan.size());
    ++checked;
  }
  EXPECT_EQ(checked, 6);
}

TEST(DispatchPlan, EqualChunksAreDealtFromTheLastOne) {
  EXPECT_EQ(plan_dispatch(full_mask(8, 8), {.cp = 2, .chunk_size = 2}).chunks_of_rank, (Chunks{{1, 3}, {0, 2}}));
}

TEST(DispatchPlan, TheLastChunkMayBeShorter) {
  const DispatchPlan plan = plan_dispatch(causal_mask(10, 10), {.cp = 2, .chunk_size = 4});
  EXPECT_EQ(plan.chunk_areas, (std::vector<int64_t>{10, 26, 19}));
  EXPECT_EQ(plan.chunk(2), (Range{8, 10}));
  EXPECT_EQ(plan.chunks_of_rank, (Chunks{{1}, {0, 2}}));
  EXPECT_EQ(plan.ranges_of(1), (Ranges{{0, 4}, {8, 10}}));
  EXPECT_EQ(plan.tokens_of(1), 6);
  EXPECT_EQ(plan.area_of(1), 29);
  EXPECT_DOUBLE_EQ(plan.balance(), 29.0 / 27.5);
}

TEST(DispatchPlan, PaddingAttendsNothing) {
  const DispatchPlan plan = plan_dispatch(causal_mask(10, 10), {.cp = 3, .chunk_size = 2, .pad = true});
  EXPECT_EQ(plan.padding, 2);
  EXPECT_EQ(plan.chunk_areas, (std::vector<int64_t>{3, 7, 11, 15, 19, 0}));
  EXPECT_EQ(plan.ranges_of(0), (Ranges{{8, 12}}));
}

TEST(DispatchPlan, OneRankOwnsEverythingInOrder) {
  for (const DispatchSolver solver : kAll) {
    const DispatchPlan plan =
        plan_dispatch(causal_mask(70, 70), {.cp = 1, .chunk_size = 32, .pad = true, .solver = solver});
    EXPECT_EQ(plan.padding, 0);
    EXPECT_EQ(plan.ranges_of(0), (Ranges{{0, 70}}));
    EXPECT_EQ(plan.balance(), 1);
  }
  EXPECT_EQ(plan_dispatch(causal_mask(7, 9), {.cp = 1, .chunk_size = INT64_MAX}).key_ranges_of(0), (Ranges{{0, 9}}));
}

TEST(DispatchPlan, RanksWithoutWorkTakePart) {
  for (const DispatchSolver solver : kAll) {
    const DispatchPlan plan = plan_dispatch(full_mask(5, 5), {.cp = 8, .chunk_size = 2, .solver = solver});
    int64_t tokens = 0;
    for (int32_t rank = 0; rank < 8; ++rank) tokens += plan.tokens_of(rank);
    EXPECT_EQ(tokens, 5) << to_string(solver);
  }
  EXPECT_EQ(plan_dispatch(full_mask(0, 0), {.cp = 3}).balance(), 1);
  EXPECT_EQ(plan_dispatch(AttnMaskSpec({}, 8, 8), {.cp = 2, .chunk_size = 2}).balance(), 1);
}

TEST(DispatchPlan, CrossLengthsShareKeysInOrder) {
  const DispatchPlan plan = plan_dispatch(causal_mask(8, 30), {.cp = 4, .chunk_size = 2});
  EXPECT_EQ(plan.key_ranges_of(0), (Ranges{{0, 7}}));
  EXPECT_EQ(plan.key_ranges_of(3), (Ranges{{22, 30}}));
  EXPECT_EQ(plan_dispatch(full_mask(8, 1), {.cp = 2, .chunk_size = 2}).key_ranges_of(0), Ranges());
}

TEST(DispatchPlan, SequentialKeepsNeighboursTogether) {
  const DispatchPlan plan =
      plan_dispatch(full_mask(9, 9), {.cp = 4, .chunk_size = 1, .solver = DispatchSolver::kSequential});
  EXPECT_EQ(plan.chunks_of_rank, (Chunks{{0, 1}, {2, 3}, {4, 5}, {6, 7, 8}}));
}

TEST(DispatchPlan, IoAwareKeepsAWindowTogether) {
  const int64_t total = 64 * 64;
  const AttnMaskSpec mask = sliding_window_mask({total}, {.left = 64, .right = 0});
  const DispatchPlan plan = plan_dispatch(mask, {.cp = 8, .chunk_size = 64, .solver = DispatchSolver::kIoAware});
  for (int32_t rank = 0; rank < 8; ++rank) EXPECT_LE(plan.ranges_of(rank).size(), 2u);
  EXPECT_LE(plan.balance(), 1.02);
}

TEST(DispatchPlan, RefusesWhatCannotBeDealt) {
  const AttnMaskSpec mask = causal_mask(100, 100);
  expect_error(ErrorCode::kInvalidArgument, {"cp = 0", "at least 1"}, [&] { plan_dispatch(mask, {.cp = 0}); });
  expect_error(ErrorCode::kInvalidArgument, {"chunk_size = 0"},
               [&] { plan_dispatch(mask, {.cp = 2, .chunk_size = 0}); });
  expect_error(ErrorCode::kInvalidArgument, {"chunk_size = 101", "100 tokens", "at most 50"},
               [&] { plan_dispatch(mask, {.cp = 2, .chunk_size = 101}); });
  expect_error(ErrorCode::kInvalidArgument, {"padding", "100 and 120"},
               [&] { plan_dispatch(causal_mask(100, 120), {.cp = 2, .chunk_size = 10, .pad = true}); });
  expect_error(ErrorCode::kInvalidArgument, {"16 chunks", "has 25"},
               [&] { plan_dispatch(mask, {.cp = 2, .chunk_size = 4, .solver = DispatchSolver::kExact}); });
}

TEST(DispatchPlan, SolversHaveNames) {
  for (const DispatchSolver solver : kAll) EXPECT_EQ(parse_dispatch_solver(to_string(solver)), solver);
  expect_error(ErrorCode::kUsage, {"\"minheap\"", "did you mean \"min-heap\"?"},
               [] { parse_dispatch_solver("minheap"); });
}

}  // namespace
}  // namespace attnmux
