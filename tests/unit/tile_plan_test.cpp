#include "attnmux/tile_plan.h"

#include <gtest/gtest.h>

#include "attnmux/mask_builders.h"
#include "expect_error.h"

namespace attnmux {

std::ostream& operator<<(std::ostream& out, const TileRun& run) {
  return out << "{tile " << run.tile << ", count " << run.count << ", mask " << run.mask_id << "}";
}

namespace {

using Runs = std::vector<TileRun>;

Runs runs(const TilePlan& plan, int32_t q_tile) { return {plan.runs(q_tile).begin(), plan.runs(q_tile).end()}; }
Runs runs(const TransposedTilePlan& plan, int32_t k_tile) {
  return {plan.runs(k_tile).begin(), plan.runs(k_tile).end()};
}

TEST(TilePlan, CausalIsOneRunAndOneSharedDiagonalTile) {
  const TilePlan plan = make_tile_plan(causal_mask(64, 64), {16, 16});
  EXPECT_EQ(plan.num_q_tiles, 4);
  EXPECT_EQ(plan.num_k_tiles, 4);
  EXPECT_EQ(plan.area, 64 * 65 / 2);
  EXPECT_EQ(runs(plan, 0), (Runs{{0, 1, 0}}));
  EXPECT_EQ(runs(plan, 3), (Runs{{0, 3, kUnmasked}, {3, 1, 0}}));
  EXPECT_EQ(plan.tiles(3), 4);
  EXPECT_EQ(plan.masks.num_intervals, 1);
  EXPECT_EQ(plan.masks.num_bits, 0);
  EXPECT_EQ(plan.masks.rows(0)[0], (RowInterval{0, 1}));
  EXPECT_EQ(plan.masks.rows(0)[15], (RowInterval{0, 16}));

  const TransposedTilePlan transposed = transpose(plan);
  EXPECT_EQ(runs(transposed, 0), (Runs{{0, 1, 0}, {1, 3, kUnmasked}}));
  EXPECT_EQ(runs(transposed, 3), (Runs{{3, 1, 0}}));
}

TEST(TilePlan, TileCoveredByTwoSlicesTogetherIsUnmasked) {
  const AttnMaskSpec mask(
      {{{0, 5}, {0, 32}, MaskType::kFull}, {{5, 16}, {0, 7}, MaskType::kFull}, {{5, 16}, {7, 32}, MaskType::kFull}}, 16,
      32);
  const TilePlan plan = make_tile_plan(mask, {16, 16});
  EXPECT_EQ(runs(plan, 0), (Runs{{0, 2, kUnmasked}}));
  EXPECT_EQ(plan.masks.num_intervals + plan.masks.num_bits, 0);
}

TEST(TilePlan, TileCoveredByCrossingTrianglesIsUnmasked) {
  const AttnMaskSpec mask({{{0, 16}, {0, 16}, MaskType::kCausal}, {{0, 16}, {0, 16}, MaskType::kInvCausal}}, 16, 16);
  EXPECT_EQ(runs(make_tile_plan(mask, {16, 16}), 0), (Runs{{0, 1, kUnmasked}}));
}

TEST(TilePlan, RaggedEdgeTilesArePartial) {
  const TilePlan plan = make_tile_plan(full_mask(20, 40), {16, 16});
  EXPECT_EQ(runs(plan, 0), (Runs{{0, 2, kUnmasked}, {2, 1, 0}}));
  EXPECT_EQ(runs(plan, 1), (Runs{{0, 1, 1}, {1, 1, 1}, {2, 1, 2}}));
  EXPECT_EQ(plan.masks.rows(0)[15], (RowInterval{0, 8}));
  EXPECT_EQ(plan.masks.rows(1)[3], (RowInterval{0, 16}));
  EXPECT_EQ(plan.masks.rows(1)[4], (RowInterval{0, 0}));
}

TEST(TilePlan, RowsWithTwoIntervalsMakeABitTile) {
  const AttnMaskSpec mask({{{0, 16}, {0, 4}, MaskType::kFull}, {{2, 3}, {60, 70}, MaskType::kFull}}, 16, 128);
  const TilePlan plan = make_tile_plan(mask, {16, 128});
  ASSERT_EQ(runs(plan, 0), (Runs{{0, 1, 0}}));
  EXPECT_EQ(plan.masks.num_bits, 1);
  EXPECT_FALSE(plan.masks.is_interval(0));
  EXPECT_EQ(plan.masks.words_per_row(), 2);
  EXPECT_EQ(plan.masks.words(0)[0], 0xfu);
  EXPECT_EQ(plan.masks.words(0)[2 * 2], 0xf00000000000000fu);
  EXPECT_EQ(plan.masks.words(0)[2 * 2 + 1], 0x3fu);
}

TEST(TilePlan, IntervalTilesComeBeforeBitTiles) {
  std::vector<uint8_t> dense(16 * 48, 0);
  dense[0] = dense[5] = 1;        // tile 0: two intervals in a row
  dense[16 + 3] = 1;              // tile 1: one
  dense[32] = dense[32 + 5] = 1;  // tile 2: as tile 0
  const TilePlan plan = make_tile_plan(mask_from_dense(dense, 16, 48), {16, 16});
  EXPECT_EQ(runs(plan, 0), (Runs{{0, 1, 1}, {1, 1, 0}, {2, 1, 1}}));
}

TEST(TilePlan, EmptyMasksHaveEmptyPlans) {
  const TilePlan none = make_tile_plan(AttnMaskSpec({}, 40, 20), {16, 16});
  EXPECT_EQ(none.num_q_tiles, 3);
  EXPECT_TRUE(none.runs(2).empty());
  EXPECT_EQ(transpose(none).run_offsets, (std::vector<int32_t>{0, 0, 0}));
  const TilePlan nothing = make_tile_plan(full_mask(0, 0), {16, 16});
  EXPECT_EQ(nothing.run_offsets, (std::vector<int32_t>{0}));
  EXPECT_EQ(longest_first(nothing), (std::vector<int32_t>{}));
}

TEST(TilePlan, LongestFirstBreaksTiesByIndex) {
  const TilePlan plan = make_tile_plan(varlen_mask({32, 16, 48}, MaskType::kCausal), {16, 16});
  EXPECT_EQ(longest_first(plan), (std::vector<int32_t>{5, 1, 4, 0, 2, 3}));
  EXPECT_EQ(longest_first(transpose(plan)), (std::vector<int32_t>{3, 0, 4, 1, 2, 5}));
}

TEST(TilePlan, RefusesOtherShapes) {
  const AttnMaskSpec mask = causal_mask(64, 64);
  expect_error(ErrorCode::kInvalidArgument, {"48 x 64", "q = 48"}, [&] { make_tile_plan(mask, {48, 64}); });
  expect_error(ErrorCode::kInvalidArgument, {"k = 8 is not a power of two from 16 to 1024"}, [&] {
    make_tile_plan(mask, {64, 8});
  });
  expect_error(ErrorCode::kInvalidArgument, {"q = 2048"}, [&] { make_tile_plan(mask, {2048, 64}); });
  expect_error(ErrorCode::kInvalidArgument, {"q = -16"}, [&] { make_tile_plan(mask, {-16, 64}); });
}

// 8192 x 8192 tiles, of which half are attended: walked tile by tile, this test would be felt.
TEST(TilePlan, RunsCostOneStepWhateverTheirCount) {
  const int64_t total = int64_t{1} << 20;
  const TilePlan plan = make_tile_plan(causal_mask(total, total), {128, 128});
  EXPECT_EQ(plan.run_list.size(), 2u * 8192 - 1);
  EXPECT_EQ(plan.masks.num_intervals, 1);
  EXPECT_EQ(plan.tiles(8191), 8192);
  EXPECT_EQ(transpose(plan).run_list.size(), 2u * 8192 - 1);
  EXPECT_EQ(longest_first(plan).front(), 8191);
}

}  // namespace
}  // namespace attnmux
