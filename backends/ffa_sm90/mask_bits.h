// Rows of partial tiles as 128 bits, from either form in which TileMasks holds them.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "attnmux/tile_plan.h"
#include "ffa_sm90/fwd_params.h"

namespace attnmux::ffa_sm90 {

using RowBits = std::array<uint64_t, 2>;  // attended keys of one query, relative to the tile
using TileBits = std::array<RowBits, kTile>;

// Bits [begin, end) of 64.
inline uint64_t bit_range(int begin, int end) {
  begin = std::clamp(begin, 0, 64);
  end = std::clamp(end, 0, 64);
  if (begin >= end) return 0;
  const uint64_t below_end = end == 64 ? ~uint64_t{0} : (uint64_t{1} << end) - 1;
  return below_end & ~((uint64_t{1} << begin) - 1);
}

// REQUIRES: tiles of 128 keys.
inline RowBits row_bits(const TileMasks& masks, int32_t id, int row) {
  if (masks.is_interval(id)) {
    const RowInterval& keys = masks.rows(id)[row];
    return {bit_range(keys.begin, keys.end), bit_range(keys.begin - 64, keys.end - 64)};
  }
  const uint64_t* words = masks.words(id);
  return {words[2 * row], words[2 * row + 1]};
}

// REQUIRES: tiles of 128 queries x 128 keys.
inline TileBits tile_bits(const TileMasks& masks, int32_t id) {
  TileBits tile;
  for (int row = 0; row < kTile; ++row) tile[row] = row_bits(masks, id, row);
  return tile;
}

}  // namespace attnmux::ffa_sm90
