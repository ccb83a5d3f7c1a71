// A tile plan in the form that the forward kernel reads, built on the host.
//
//   ForwardPlan plan = make_forward_plan(make_tile_plan(mask, {.q = kTile, .k = kTile}));
//
// Plain arrays that are uploaded as they are. Pure, any thread.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "attnmux/tile_plan.h"
#include "ffa_sm90/fwd_params.h"

namespace attnmux::ffa_sm90 {

// The bits of one partial tile as the threads of two warpgroups hold its scores: thread t of group g owns 64 bits,
// word h bit 2 j + e for row 64 g + 16 (t / 32) + t % 32 / 4 + 8 h and column 8 j + 2 (t % 4) + e.
using MaskTile = std::array<uint32_t, kMaskTileBytes / sizeof(uint32_t)>;

struct ForwardPlan {
  std::vector<QTileRecord> records;  // one for each q tile, the most expensive first
  std::vector<int2> entries;
  std::vector<MaskTile> masks;
};

// REQUIRES: plan.shape is {kTile, kTile}.
ForwardPlan make_forward_plan(const TilePlan& plan);

}  // namespace attnmux::ffa_sm90
