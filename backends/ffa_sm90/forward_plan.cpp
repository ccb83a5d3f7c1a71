#include "ffa_sm90/forward_plan.h"

#include <algorithm>

#include "ffa_sm90/mask_bits.h"

namespace attnmux::ffa_sm90 {
namespace {

// Every fourth pair of bits, from pair `quad` on, of 128: what a lane of a quad holds of one row.
uint32_t quad_bits(const RowBits& row, int quad) {
  uint32_t word = 0;
  for (int j = 0; j < 16; ++j) {
    word |= static_cast<uint32_t>(row[j / 8] >> (8 * (j % 8) + 2 * quad) & 3) << (2 * j);
  }
  return word;
}

MaskTile thread_order(const TileBits& bits) {
  MaskTile tile;
  for (int row = 0; row < kTile; ++row) {
    const int warp = row / 16, half = row % 16 / 8;  // warps 0 to 3 are the first warpgroup
    for (int quad = 0; quad < 4; ++quad) {
      const int thread = warp * 32 + row % 8 * 4 + quad;
      tile[thread * 2 + half] = quad_bits(bits[row], quad);
    }
  }
  return tile;
}

}  // namespace

ForwardPlan make_forward_plan(const TilePlan& plan) {
  ForwardPlan forward;
  forward.records.reserve(plan.num_q_tiles);
  forward.entries.reserve(plan.run_list.size());
  for (int32_t q_tile = 0; q_tile < plan.num_q_tiles; ++q_tile) {
    QTileRecord record{
        .q_tile = q_tile, .begin = static_cast<int32_t>(forward.entries.size()), .num_masked = 0, .num_unmasked = 0};
    for (const TileRun& run : plan.runs(q_tile)) {
      if (run.mask_id == kUnmasked) continue;
      forward.entries.push_back({run.tile, run.mask_id});
      ++record.num_masked;
    }
    for (const TileRun& run : plan.runs(q_tile)) {
      if (run.mask_id != kUnmasked) continue;
      forward.entries.push_back({run.tile, run.count});
      record.num_unmasked += run.count;
    }
    forward.records.push_back(record);
  }
  std::stable_sort(forward.records.begin(), forward.records.end(), [](const QTileRecord& a, const QTileRecord& b) {
    return a.num_masked + a.num_unmasked > b.num_masked + b.num_unmasked;
  });
  const int32_t num_masks = plan.masks.num_intervals + plan.masks.num_bits;
  forward.masks.reserve(num_masks);
  for (int32_t id = 0; id < num_masks; ++id) forward.masks.push_back(thread_order(tile_bits(plan.masks, id)));
  return forward;
}

}  // namespace attnmux::ffa_sm90
