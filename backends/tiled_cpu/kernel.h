// What the kernels see: raw pointers, strides and the tile plan as plain arrays, and the table of functions that each
// instruction set provides. No tensor, no container and no standard algorithm may enter a translation unit that is
// compiled for a newer instruction set than the rest: an inline function emitted there could be the copy that the
// linker keeps for the whole program, and would then fault on an older processor.
#pragma once

#include <cstddef>
#include <cstdint>

#include "attnmux/tile_plan.h"

namespace attnmux::tiled_cpu {

// bfloat16 and float16 as bits; float and double stand for themselves.
struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

// [tokens, heads, dim] with any strides, in elements.
struct View {
  const void* data = nullptr;
  int64_t token = 0;
  int64_t head = 0;
  int64_t dim = 0;
};

struct MutableView {
  void* data = nullptr;
  int64_t token = 0;
  int64_t head = 0;
  int64_t dim = 0;
};

struct Dims {
  int64_t total_q = 0;
  int64_t total_k = 0;
  int64_t heads_q = 0;
  int64_t heads_kv = 0;
  int64_t head_dim = 0;
  int64_t head_dim_v = 0;
};

// Tile shape of every plan here: large enough to hide packing, small enough that the scores of one panel of queries
// stay in L1. Partial tiles are narrowed to their attended part, so a mask finer than a tile costs little.
inline constexpr int32_t kQTile = 128;
inline constexpr int32_t kKTile = 128;

// The arrays of a TilePlan of shape {kQTile, kKTile}.
struct PlanView {
  const int32_t* run_offsets = nullptr;
  const TileRun* runs = nullptr;
  int32_t num_intervals = 0;
  const RowInterval* intervals = nullptr;
  const uint64_t* bits = nullptr;
};

// What workers share of packed_keys.h.
struct PackedKeys {
  char* tiles = nullptr;      // [slots, num_tiles], each of tile_bytes
  int32_t* states = nullptr;  // [slots, num_tiles], 0 at the start
  int64_t slots = 0;          // kv heads at a time
  int64_t num_tiles = 0;
  size_t tile_bytes = 0;
};

struct ForwardProblem {
  Dims dims;
  PlanView plan;
  View q, k, v;
  MutableView out;
  void* lse = nullptr;  // [total_q, heads_q], float or double
  double softmax_scale = 1.0;
  PackedKeys packed;
};

// What one worker computes at a time.
struct ForwardItem {
  int32_t q_tile = 0;
  int64_t head = 0;
};

// `Segment`: neighbouring k tiles whose dK and dV one worker accumulates.
struct BackwardProblem {
  Dims dims;
  PlanView plan;
  View q, k, v;
  View out, dout;
  const void* lse = nullptr;  // [total_q, heads_q], float or double
  void* delta = nullptr;      // [heads_q, total_q], rowsum(dout * out)
  void* dq = nullptr;         // [total_q, heads_q, head_dim], float or double
  MutableView dk, dv;
  double softmax_scale = 1.0;
  int32_t tiles_per_segment = 1;
  int32_t num_k_tiles = 0;
  const int32_t* segment_q_tiles = nullptr;  // [segments, 2]: first and one past the last q tile that it meets
  int32_t* dq_turn = nullptr;  // [q tiles, heads_q]: 1 + the last segment that has added to dq; 0 at the start
};

// One dtype's kernels for one instruction set. Scratch is one buffer a worker, aligned to 64 bytes.
struct Kernels {
  size_t (*packed_tile_bytes)(const Dims&);  // of keys and values; a multiple of 64
  size_t (*forward_scratch)(const ForwardProblem&);
  // `likely_next` is only fetched ahead: it may turn out to be another worker's.
  // REQUIRES: all items of the kv head that was in the packed slot before have ended.
  void (*forward)(const ForwardProblem&, const ForwardItem&, const ForwardItem& likely_next, void* scratch);
  size_t (*backward_scratch)(const BackwardProblem&);
  void (*delta)(const BackwardProblem&, int32_t q_tile, void* scratch);  // all heads; zeroes dq of rows without tiles
  // Waits for the segment before it where both meet a q tile: segments of a head must be started in order.
  void (*backward)(const BackwardProblem&, int32_t segment, int64_t kv_head, void* scratch);
};

struct KernelTable {
  Kernels float32, bfloat16, float16, float64;
};

KernelTable generic_kernels();
#if defined(__x86_64__)
KernelTable avx2_kernels();         // AVX2, FMA, F16C
KernelTable avx512_kernels();       // AVX-512 F, BW, DQ, VL
KernelTable avx512_bf16_kernels();  // beside them AVX512_BF16
KernelTable amx_kernels();          // beside them AMX-TILE, AMX-BF16
#endif

}  // namespace attnmux::tiled_cpu
