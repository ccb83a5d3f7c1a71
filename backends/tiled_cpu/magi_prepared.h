// What the magi backend derives from a mask once: the tile plan, the order of work and the segments of the backward.
#pragma once

#include <cstdint>
#include <vector>

#include "attnmux/backend.h"
#include "attnmux/tile_plan.h"
#include "tiled_cpu/kernel.h"

namespace attnmux::tiled_cpu {

struct MagiPrepared final : Prepared {
  MagiPrepared(const AttnMaskSpec& mask, const AttentionShape& attention_shape);

  AttentionShape shape;
  TilePlan plan;
  std::vector<int32_t> q_order;  // q tiles, the most expensive first

  // Segments: `tiles_per_segment` neighbouring k tiles, the unit of work of the backward.
  int32_t tiles_per_segment = 1;
  int32_t num_segments = 0;
  std::vector<int32_t> segment_q_tiles;  // [num_segments, 2]: first and one past the last q tile that a segment meets

  PlanView view() const;
};

}  // namespace attnmux::tiled_cpu
