#include "tiled_cpu/magi_prepared.h"

#include <algorithm>

namespace attnmux::tiled_cpu {
namespace {

// K, V, dK and dV of a segment stay in L2 while the q tiles pass by.
constexpr int64_t kSegmentBytes = 1024 * 1024;
constexpr int32_t kMaxSegmentTiles = 8;
// Enough segments to keep many cores busy, from the shape alone: the split must not depend on the threads at hand.
constexpr int64_t kWantedItems = 16;

int32_t choose_tiles_per_segment(const AttentionShape& shape, int32_t num_k_tiles) {
  const int64_t bytes_per_tile = 2 * kKTile * (shape.head_dim + shape.head_dim_v) * int64_t{sizeof(float)};
  const int64_t cached = kSegmentBytes / bytes_per_tile;
  const int64_t spread = num_k_tiles * shape.heads_kv / kWantedItems;
  return static_cast<int32_t>(std::clamp<int64_t>(std::min(cached, spread), 1, kMaxSegmentTiles));
}

std::vector<int32_t> find_segment_q_tiles(const TilePlan& plan, int32_t tiles_per_segment, int32_t num_segments) {
  std::vector<int32_t> ranges(2 * num_segments, 0);
  for (int32_t q_tile = 0; q_tile < plan.num_q_tiles; ++q_tile) {
    for (const TileRun& run : plan.runs(q_tile)) {
      const int32_t last = (run.tile + run.count - 1) / tiles_per_segment;
      for (int32_t segment = run.tile / tiles_per_segment; segment <= last; ++segment) {
        if (ranges[2 * segment + 1] == 0) ranges[2 * segment] = q_tile;
        ranges[2 * segment + 1] = q_tile + 1;
      }
    }
  }
  return ranges;
}

}  // namespace

MagiPrepared::MagiPrepared(const AttnMaskSpec& mask, const AttentionShape& attention_shape)
    : shape(attention_shape),
      plan(make_tile_plan(mask, {.q = kQTile, .k = kKTile})),
      q_order(longest_first(plan)),
      tiles_per_segment(choose_tiles_per_segment(shape, plan.num_k_tiles)),
      num_segments((plan.num_k_tiles + tiles_per_segment - 1) / tiles_per_segment),
      segment_q_tiles(find_segment_q_tiles(plan, tiles_per_segment, num_segments)) {}

PlanView MagiPrepared::view() const {
  return {.run_offsets = plan.run_offsets.data(),
          .runs = plan.run_list.data(),
          .num_intervals = plan.masks.num_intervals,
          .intervals = plan.masks.intervals.data(),
          .bits = plan.masks.bits.data()};
}

}  // namespace attnmux::tiled_cpu
