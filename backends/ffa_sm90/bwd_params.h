// What the backward kernels are launched with.
#pragma once

#include <cuda.h>
#include <vector_types.h>

#include <cstdint>

#include "ffa_sm90/fwd_params.h"

namespace attnmux::ffa_sm90 {

// Queries of one backward step: what registers and shared memory allow beside 128 keys.
constexpr int backward_rows(int head_dim) { return head_dim == 64 ? 128 : 64; }

// What attends one k tile, from entries[begin] on: `num_masked` entries (step of queries, mask), runs (first step,
// count) of `num_unmasked` steps in all, `num_masked_behind` entries (step, mask). The steps of a run ascend, where
// turns are taken they descend.
struct KTileRecord {
  int32_t k_tile;
  int32_t begin;
  int32_t num_masked;
  int32_t num_unmasked;
  int32_t num_masked_behind;
};

// Which k tiles attend a q tile, for sums in a fixed order: runs ascending, a q tile's from writer_begin[q_tile] on.
struct WriterRun {
  int32_t k_tile;     // the first of the run
  int32_t before[2];  // k tiles before it that attend each step of the q tile
};

// How many k tiles before `k_tile` attend the step. REQUIRES: k_tile attends it.
constexpr int32_t writer_rank(const int32_t* writer_begin, const WriterRun* writers, int32_t q_tile, int32_t step,
                              int32_t k_tile) {
  int32_t low = writer_begin[q_tile], high = writer_begin[q_tile + 1];
  while (high - low > 1) {
    const int32_t middle = (low + high) / 2;
    (writers[middle].k_tile <= k_tile ? low : high) = middle;
  }
  return writers[low].before[step] + k_tile - writers[low].k_tile;
}

// A query with so few keys that the rounding of its output is felt in rowsum(dout * out); see ffa_scarce_row_kernel.
inline constexpr int kScarceKeys = 4;
struct ScarceRow {
  int32_t row;
  int32_t keys[kScarceKeys];  // -1 behind the last
};

struct BwdParams {
  CUtensorMap q_map, dout_map;  // boxes of {64, 1, backward_rows} of [head_dim, heads, tokens], 128-byte swizzle
  CUtensorMap k_map, v_map;     // box {64, 1, 128}
  CUtensorMap dk_map, dv_map;   // box {64, 1, 64}
  const KTileRecord* records;   // [num_k_tiles], the most expensive first; ascending where turns are taken
  const int2* entries;
  const char* masks;  // [distinct partial steps, backward_rows * 16 bytes]
  // Where dq is summed in a fixed order, blocks take turns:
  int32_t* turns;               // [heads_q, steps], 0 at launch: k tiles whose dq is in
  const int32_t* writer_begin;  // of writer_rank
  const WriterRun* writers;
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
