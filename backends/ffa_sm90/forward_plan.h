// A tile plan in the form that the forward kernel reads, built on the host.
//
//   ForwardPlan plan = make_forward_plan(make_tile_plan(mask, {.q = kStrip, .k = kTile}), forward_strips(head_dim));
//
// Plain arrays that are uploaded as they are. Pure, any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "attnmux/tile_plan.h"
#include "ffa_sm90/fwd_params.h"

namespace attnmux::ffa_sm90 {

struct ForwardPlan {
  std::vector<QTileRecord> records;  // one for each q tile, the most expensive first
  std::vector<int2> entries;
  // The bits of partial tiles as the threads hold their scores: thread t of strip s owns 64 bits, words 2 t + {0, 1} of
  // strip s; word h, bit 2 j + e is for row 64 s + 16 (t / 32) + t % 32 / 4 + 8 h and column 8 j + 2 (t % 4) + e.
  std::vector<uint32_t> masks;
};

// REQUIRES: plan.shape is {kStrip, kTile}. A q tile is `strips` neighbouring strips; a k tile that all of them attend
// wholly is unmasked, one that any attends otherwise is masked.
ForwardPlan make_forward_plan(const TilePlan& plan, int strips);

}  // namespace attnmux::ffa_sm90
