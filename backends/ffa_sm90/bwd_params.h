// What the backward kernels are launched with.
#pragma once

#include <cuda.h>
#include <vector_types.h>

#include <cstdint>

#include "ffa_sm90/fwd_params.h"

namespace attnmux::ffa_sm90 {

// Queries of one backward step: what registers and shared memory allow beside 128 keys.
constexpr int backward_rows(int head_dim) { return head_dim == 64 ? 128 : 64; }

// What attends one k tile: `num_masked` entries (step of queries, mask), then runs (first step, count) of
// `num_unmasked` steps in all, from entries[begin] on.
struct KTileRecord {
  int32_t k_tile;
  int32_t begin;
  int32_t num_masked;
  int32_t num_unmasked;
};

struct BwdParams {
  CUtensorMap q_map, dout_map;  // boxes of {64, 1, backward_rows} of [head_dim, heads, tokens], 128-byte swizzle
  CUtensorMap k_map, v_map;     // box {64, 1, 128}
  CUtensorMap dk_map, dv_map;   // box {64, 1, 64}
  const KTileRecord* records;   // [num_k_tiles], the most expensive first
  const int2* entries;
  const char* masks;      // [distinct partial steps, backward_rows * 16 bytes]
  int32_t* counter;       // 0 at launch
  const float* lse_log2;  // [heads_q, padded_q]: lse * log2(e), 0 for rows without keys
  const float* dout_out;  // [heads_q, padded_q]: -rowsum(dout * out)
  float* dq;              // [heads_q, padded_q, head_dim] in fragment order, 0 at launch
  float scale;            // softmax_scale
  float scale_log2;       // softmax_scale * log2(e)
  int32_t num_k_tiles;
  int32_t heads_kv;
  int32_t group;
  int32_t section_heads;  // kv heads whose queries and gradients share the L2 at a time; divides heads_kv
  int32_t padded_q;       // total_q rounded up to kTile
};

}  // namespace attnmux::ffa_sm90
