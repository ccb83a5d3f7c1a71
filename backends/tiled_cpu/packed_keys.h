// K and V of some kv heads, packed tile by tile by the worker that first needs one.
//
// `slots` heads are held at a time, head h in slot h % slots. The state of a tile is the one word that workers agree
// by: 2 h + 1 while one packs it for head h, 2 h + 2 once it may be read. Heads of a slot only ever grow, so a state
// never falls. Whoever reads head h must know that no one reads head h - slots any more (magi_backend.cpp counts that).
#pragma once

#include <sched.h>

#include "pack.h"

namespace attnmux::tiled_cpu {
namespace ATTNMUX_ISA {

// A k tile on the way through the runs of one q tile.
struct TileWalk {
  int32_t run = 0;
  int32_t last_run = 0;  // one past
  int64_t tile = 0;
  bool done() const { return run == last_run; }
};

inline TileWalk first_tile(const PlanView& plan, int32_t q_tile) {
  const int32_t run = plan.run_offsets[q_tile], last = plan.run_offsets[q_tile + 1];
  return {.run = run, .last_run = last, .tile = run < last ? plan.runs[run].tile : 0};
}

inline TileWalk tile_after(const PlanView& plan, TileWalk walk) {
  if (++walk.tile < plan.runs[walk.run].tile + plan.runs[walk.run].count) return walk;
  if (++walk.run < walk.last_run) walk.tile = plan.runs[walk.run].tile;
  return walk;
}

inline char* tile_of_head(const PackedKeys& keys, int64_t tile, int64_t kv_head) {
  return keys.tiles + (kv_head % keys.slots * keys.num_tiles + tile) * static_cast<int64_t>(keys.tile_bytes);
}

inline int32_t* state_of_tile(const PackedKeys& keys, int64_t tile, int64_t kv_head) {
  return keys.states + kv_head % keys.slots * keys.num_tiles + tile;
}

inline bool is_packed(const PackedKeys& keys, int64_t tile, int64_t kv_head) {
  return __atomic_load_n(state_of_tile(keys, tile, kv_head), __ATOMIC_ACQUIRE) == 2 * kv_head + 2;
}

// Packs the tile unless a worker has begun to.
template <class Pack>
inline void pack_if_free(const PackedKeys& keys, int64_t tile, int64_t kv_head, const Pack& pack) {
  int32_t* const state = state_of_tile(keys, tile, kv_head);
  const int32_t packing = static_cast<int32_t>(2 * kv_head + 1);
  int32_t seen = __atomic_load_n(state, __ATOMIC_RELAXED);
  if (seen >= packing) return;
  if (!__atomic_compare_exchange_n(state, &seen, packing, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) return;
  pack(tile, tile_of_head(keys, tile, kv_head));
  __atomic_store_n(state, packing + 1, __ATOMIC_RELEASE);
}

// The tile that a walk is at, packed by pack(tile, to) if need be. While another worker packs it, this one packs what
// comes later on its way, so that many workers that start on the same keys share them out.
template <class Pack>
inline const char* packed_tile(const PackedKeys& keys, const PlanView& plan, const TileWalk& walk, int64_t kv_head,
                               const Pack& pack) {
  pack_if_free(keys, walk.tile, kv_head, pack);
  for (TileWalk later = walk; !is_packed(keys, walk.tile, kv_head);) {
    if (!later.done()) later = tile_after(plan, later);
    if (later.done()) {
      sched_yield();
    } else {
      pack_if_free(keys, later.tile, kv_head, pack);
    }
  }
  return tile_of_head(keys, walk.tile, kv_head);
}

// Part `part` of `parts` of a tile that is wanted soon, into L2: as it was packed, or the rows it will be packed from.
template <class S>
inline void prefetch_keys(const ForwardProblem& p, int64_t tile, int64_t kv_head, int64_t part, int64_t parts) {
  if (is_packed(p.packed, tile, kv_head)) {
    prefetch_part(tile_of_head(p.packed, tile, kv_head), p.packed.tile_bytes, part, parts);
    return;
  }
  const int64_t begin = tile * kKTile, keys = smaller(kKTile, p.dims.total_k - begin);
  for (int64_t key = begin + keys * part / parts; key < begin + keys * (part + 1) / parts; ++key) {
    prefetch_row(row_of<S>(p.k, key, kv_head), p.dims.head_dim);
    prefetch_row(row_of<S>(p.v, key, kv_head), p.dims.head_dim_v);
  }
}

}  // namespace ATTNMUX_ISA
}  // namespace attnmux::tiled_cpu
