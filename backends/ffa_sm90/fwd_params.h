// What the forward kernel is launched with: device pointers and tensor maps, one value passed as a grid constant.
#pragma once

#include <cuda.h>
#include <vector_types.h>

#include <cstdint>

namespace attnmux::ffa_sm90 {

inline constexpr int kTile = 128;            // keys of a tile; in backward queries of one, too
inline constexpr int kStrip = 64;            // queries of one warpgroup
inline constexpr int kStripMaskWords = 256;  // bits of 64 queries x 128 keys

// Strips of a q tile: what registers allow beside one another.
constexpr int forward_strips(int head_dim) { return head_dim == 64 ? 3 : 2; }

// What one q tile of forward_strips x 64 queries attends: `num_masked` entries (k tile, mask), then runs (first k tile,
// count) of `num_unmasked` tiles in all, from entries[begin] on.
struct QTileRecord {
  int32_t q_tile;
  int32_t begin;
  int32_t num_masked;
  int32_t num_unmasked;
};

struct FwdParams {
  CUtensorMap q_map;           // boxes of {64, 1, strips * 64} of [head_dim, heads, tokens], 128-byte swizzle
  CUtensorMap k_map, v_map;    // boxes of {64, 1, 128}
  CUtensorMap o_map;           // boxes of {64, 1, 64}
  const QTileRecord* records;  // [num_q_tiles], the most expensive first
  const int2* entries;
  const uint32_t* masks;  // [distinct partial tiles, strips, kStripMaskWords]
  int32_t* counter;       // 0 at launch where items outnumber blocks: items claimed beyond the first of each block
  float* lse;             // [total_q, heads_q]
  float scale_log2;       // softmax_scale * log2(e)
  int32_t num_q_tiles;
  int32_t heads_q;
  int32_t group;          // query heads of one kv head
  int32_t section_heads;  // query heads whose K and V share the L2 at a time; divides heads_q
  int32_t total_q;
  uint32_t caller;  // stored to *begun by the first block, see attnmux/launch_mark.h
  uint32_t* begun;
};

}  // namespace attnmux::ffa_sm90
