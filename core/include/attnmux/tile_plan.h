// The mask cut into fixed, globally aligned tiles: what every fast kernel consumes, on CPU and GPU alike.
//
//   TilePlan plan = make_tile_plan(mask, {.q = 128, .k = 128});
//   for (const TileRun& run : plan.runs(q_tile))
//     run.mask_id == kUnmasked ? dense(run.k_tile, run.count) : masked(run.k_tile, plan.masks, run.mask_id);
//
// One worker owns a (q tile, head) and walks its runs: no atomics, one write of each output. The backward pass walks
// transpose(plan), the same tiles listed by k tile. Immutable after make_tile_plan; read from any thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "attnmux/export.h"
#include "attnmux/mask.h"

namespace attnmux {

// Tokens a tile; both powers of two in [16, 1024].
struct TileShape {
  int32_t q = 128;
  int32_t k = 128;
  friend bool operator==(const TileShape&, const TileShape&) = default;
};

inline constexpr int32_t kUnmasked = -1;

// Most runs that a plan or its transpose may have.
inline constexpr int64_t kMaxTileRuns = int64_t{1} << 28;

// `count` neighbouring tiles starting at `tile` (a k tile in a plan, a q tile in its transpose), all pairs attended
// (mask_id == kUnmasked), or one partly attended tile (count == 1, mask_id >= 0). A tile that reaches beyond total_q
// or total_k is always partial: its pairs outside are not attended.
struct TileRun {
  int32_t tile = 0;
  int32_t count = 0;
  int32_t mask_id = kUnmasked;
  friend bool operator==(const TileRun&, const TileRun&) = default;
};

// Attended keys of one row of a tile, relative to the tile: [begin, end), begin == end for none.
struct RowInterval {
  int16_t begin = 0;
  int16_t end = 0;
  friend bool operator==(const RowInterval&, const RowInterval&) = default;
};

// Distinct partial tiles. Ids [0, num_intervals) hold at most one interval in each row; the rest are bit tiles.
struct TileMasks {
  TileShape shape;
  int32_t num_intervals = 0;
  int32_t num_bits = 0;
  std::vector<RowInterval> intervals;  // [num_intervals, shape.q]
  std::vector<uint64_t> bits;          // [num_bits, shape.q, max(shape.k / 64, 1)], bit k % 64 of word k / 64

  bool is_interval(int32_t mask_id) const { return mask_id < num_intervals; }
  const RowInterval* rows(int32_t mask_id) const { return &intervals[int64_t{mask_id} * shape.q]; }
  const uint64_t* words(int32_t mask_id) const {
    return &bits[int64_t{mask_id - num_intervals} * shape.q * words_per_row()];
  }
  int32_t words_per_row() const { return shape.k >= 64 ? shape.k / 64 : 1; }
};

struct ATTNMUX_API TilePlan {
  TileShape shape;
  int64_t total_q = 0;
  int64_t total_k = 0;
  int64_t area = 0;  // attended pairs
  int32_t num_q_tiles = 0;
  int32_t num_k_tiles = 0;
  std::vector<int32_t> run_offsets;  // [num_q_tiles + 1] into run_list
  std::vector<TileRun> run_list;     // ascending tiles within a q tile, unmasked neighbours joined
  TileMasks masks;                   // rows are queries, in the plan and in its transpose alike

  std::span<const TileRun> runs(int32_t q_tile) const {
    return {run_list.data() + run_offsets[q_tile], run_list.data() + run_offsets[q_tile + 1]};
  }
  // Tiles visited for one q tile: its cost in units of one tile.
  int64_t tiles(int32_t q_tile) const;
};

// The same tiles by k tile: run.tile is a q tile. Shares no storage with the plan; masks stay in the plan.
struct ATTNMUX_API TransposedTilePlan {
  std::vector<int32_t> run_offsets;  // [num_k_tiles + 1]
  std::vector<TileRun> run_list;
  std::span<const TileRun> runs(int32_t k_tile) const {
    return {run_list.data() + run_offsets[k_tile], run_list.data() + run_offsets[k_tile + 1]};
  }
  int64_t tiles(int32_t k_tile) const;
};

// Tiles without attended pairs are never looked at; runs of unmasked tiles cost one step whatever their count.
// Throws Error(kInvalidArgument) for a shape that is not allowed, and for a plan of more than kMaxTileRuns
// runs or 2 GiB of distinct partial tiles.
ATTNMUX_API TilePlan make_tile_plan(const AttnMaskSpec& mask, TileShape shape);

// O(runs of the plan + runs of the result). Throws Error(kInvalidArgument) for more than kMaxTileRuns.
ATTNMUX_API TransposedTilePlan transpose(const TilePlan& plan);

// Tiles in the order in which workers should take them: most expensive first, ties by index.
ATTNMUX_API std::vector<int32_t> longest_first(const TilePlan& plan);
ATTNMUX_API std::vector<int32_t> longest_first(const TransposedTilePlan& plan);

}  // namespace attnmux
