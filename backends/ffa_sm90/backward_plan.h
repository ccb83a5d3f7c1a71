// A tile plan in the form that the backward kernel reads, built on the host: steps of queries by k tile.
//
//   BackwardPlan plan = make_backward_plan(tiles, transpose(tiles), backward_rows(head_dim));
//
// Pure, any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "attnmux/tile_plan.h"
#include "ffa_sm90/bwd_params.h"

namespace attnmux::ffa_sm90 {

struct BackwardPlan {
  std::vector<KTileRecord> records;  // one for each k tile, the most expensive first
  std::vector<int2> entries;
  // For sums in a fixed order: by k tile, the steps of each from the last to the first as far as masks allow. A step
  // waits for the k tiles before, and those come to it earlier: of a window or causal mask they begin with it or above.
  std::vector<KTileRecord> ordered_records;
  std::vector<int2> ordered_entries;
  // The bits of partial steps as the threads hold their scores, keys on rows. Thread t of warpgroup g owns, for each 64
  // queries w of the step, one word at (mask * words + w) * 256 + g * 128 + t; its bit 4 j + 2 h + e is for key
  // 64 g + 16 (t / 32) + t % 32 / 4 + 8 h and query 64 w + 8 j + 2 (t % 4) + e.
  std::vector<uint32_t> masks;
  std::vector<int32_t> writer_begin;  // [num_q_tiles + 1]
  std::vector<WriterRun> writers;
  std::vector<ScarceRow> scarce_rows;  // ascending
};

// REQUIRES: plan.shape is {kTile, kTile}; by_key is its transpose; rows is 64 or 128. A step of 64 rows whose half of a
// partial tile is empty is left out, one whose half is full is unmasked.
BackwardPlan make_backward_plan(const TilePlan& plan, const TransposedTilePlan& by_key, int rows);

}  // namespace attnmux::ffa_sm90
