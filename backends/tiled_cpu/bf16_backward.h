// Backward pass in bf16: the sweep of backward.h with its five products in bf16, summed in fp32.
//
// Per k tile of the segment and q tile, all panels first make P and dS, rounded to bf16; then
//   dV [keys, dv] += P^T dO,  dK [keys, d] += dS^T Q      along up to 128 queries, so that sums are touched rarely
//   dQ^T [d, 32] += K^T dS                                  panel by panel
// A block of 32 keys takes only the panels that attend it. K^T is made once a segment.
#pragma once

#include "backward.h"
#include "bf16_forward.h"

namespace attnmux::tiled_cpu {
namespace ATTNMUX_ISA {

constexpr int64_t kPRows = kQTile + kBf16Padding;

struct Bf16BackwardScratch {
  ScratchParts parts;
  BFloat16 *k, *k_pairs, *k_columns;         // [keys, d], [keys / 2, d, 2], [d, keys + padding]
  BFloat16* v;                               // [keys, dv]
  float *dk, *dv;                            // [keys, d], [keys, dv]
  BFloat16 *q_rows, *q_pairs, *q_row_pairs;  // [kQTile, d], [panels, d / 2, 32, 2], [kQTile / 2, d, 2]
  BFloat16 *do_rows, *do_pairs, *do_row_pairs;
  float *dq, *dq_rows;  // [panels, d, 32], [kQTile, d]
  float *scores, *dp;   // [kKTile, 32]
  BFloat16 *p, *ds;     // [kKTile, kPRows]
  BFloat16* ds_pairs;   // [kKTile / 2, 32, 2]
  float *lse, *delta;   // [kQTile]

  Bf16BackwardScratch(void* base, int64_t keys, int64_t d, int64_t dv_padded) : parts(base) {
    k = parts.take<BFloat16>(keys * d);
    k_pairs = parts.take<BFloat16>(keys * d);
    k_columns = parts.take<BFloat16>((keys + kBf16Padding) * d);
    v = parts.take<BFloat16>(keys * dv_padded);
    dk = parts.take<float>(keys * d);
    dv = parts.take<float>(keys * dv_padded);
    q_rows = parts.take<BFloat16>(kQTile * d);
    q_pairs = parts.take<BFloat16>(kQTile * d);
    q_row_pairs = parts.take<BFloat16>(kQTile * d);
    do_rows = parts.take<BFloat16>(kQTile * dv_padded);
    do_pairs = parts.take<BFloat16>(kQTile * dv_padded);
    do_row_pairs = parts.take<BFloat16>(kQTile * dv_padded);
    dq = parts.take<float>(kQTile * d);
    dq_rows = parts.take<float>(kQTile * d);
    scores = parts.take<float>(kBf16Unit * kBf16Unit);
    dp = parts.take<float>(kBf16Unit * kBf16Unit);
    p = parts.take<BFloat16>(kKTile * kPRows);
    ds = parts.take<BFloat16>(kKTile * kPRows);
    ds_pairs = parts.take<BFloat16>(kKTile * kBf16Unit);
    lse = parts.take<float>(kQTile);
    delta = parts.take<float>(kQTile);
  }
};

// Extents of one call, head dims padded.
struct Bf16Extents {
  int64_t d = 0;
  int64_t dv = 0;
  int64_t keys = 0;  // of the segment
  float factor = 0;
};

// P, dS and the share of dQ of one panel; `key` is the tile's first key in the segment. Scores live for one block of 32
// keys only, in L1.
inline void bf16_backward_panel(const PlanView& plan, int32_t mask_id, int32_t row, const Cover& cover, int64_t key,
                                const Bf16Extents& x, const Bf16BackwardScratch& s) {
  for (int32_t block = cover.key_begin; block < cover.key_end; block += kBf16Unit) {
    bf16_gemm(kBf16Unit, kBf16Unit, x.d, s.k + (key + block) * x.d, x.d, s.q_pairs + row * x.d, 2 * kBf16Unit, s.scores,
              kBf16Unit, /*add=*/false);
    bf16_gemm(kBf16Unit, kBf16Unit, x.dv, s.v + (key + block) * x.dv, x.dv, s.do_pairs + row * x.dv, 2 * kBf16Unit,
              s.dp, kBf16Unit, /*add=*/false);
    if (cover.partial) {
      const Cover part = {.key_begin = block, .key_end = block + static_cast<int32_t>(kBf16Unit)};
      mask_scores(plan, mask_id, row, part, 0, kBf16Unit, masked_score(x.factor), s.scores);
    }
    const int64_t at = int64_t{block} * kPRows + row;
    softmax_gradient_bf16(s.scores, s.dp, kBf16Unit, x.factor, s.lse + row, s.delta + row, kPRows, s.p + at, s.ds + at,
                          s.ds_pairs + (block - cover.key_begin) * kBf16Unit);
  }
  bf16_gemm(x.d, kBf16Unit, cover.key_end - cover.key_begin, s.k_columns + key + cover.key_begin, x.keys + kBf16Padding,
            s.ds_pairs, 2 * kBf16Unit, s.dq + row * x.d, kBf16Unit, /*add=*/true);
}

inline void clear_block(BFloat16* rows) {
  for (int64_t r = 0; r < kBf16Unit; ++r) _mm512_storeu_si512(rows + r * kPRows, _mm512_setzero_si512());
}

// dK and dV of one tile from P and dS. covers: of `panels` panels, in whole blocks.
inline void bf16_add_key_gradients(const Cover* covers, int32_t panels, int64_t key, const Bf16Extents& x,
                                   const Bf16BackwardScratch& s) {
  for (int32_t block = 0; block < kKTile; block += kBf16Unit) {
    const auto attends = [&](int32_t panel) {
      return covers[panel].key_begin <= block && covers[panel].key_end > block;
    };
    int32_t first = 0, last = panels;
    while (first < last && !attends(first)) ++first;
    while (first < last && !attends(last - 1)) --last;
    if (first == last) continue;
    const int64_t at = int64_t{block} * kPRows, begin = first * kBf16Unit, queries = (last - first) * kBf16Unit;
    for (int32_t panel = first; panel < last; ++panel) {
      if (attends(panel)) continue;
      clear_block(s.p + at + panel * kBf16Unit);
      clear_block(s.ds + at + panel * kBf16Unit);
    }
    bf16_gemm(kBf16Unit, x.dv, queries, s.p + at + begin, kPRows, s.do_row_pairs + begin * x.dv, 2 * x.dv,
              s.dv + (key + block) * x.dv, x.dv, /*add=*/true);
    bf16_gemm(kBf16Unit, x.d, queries, s.ds + at + begin, kPRows, s.q_row_pairs + begin * x.d, 2 * x.d,
              s.dk + (key + block) * x.d, x.d, /*add=*/true);
  }
}

inline void bf16_load_queries(const BackwardProblem& p, int64_t begin, int64_t rows, int64_t head, const Bf16Extents& x,
                              const Bf16BackwardScratch& s) {
  const int64_t padded = round_up(rows, kBf16Unit);
  pack_bf16_rows(p.q, begin, rows, padded, head, p.dims.head_dim, x.d, s.q_rows);
  pack_bf16_rows(p.dout, begin, rows, padded, head, p.dims.head_dim_v, x.dv, s.do_rows);
  pack_query_pairs(s.q_rows, padded / kBf16Unit, x.d, s.q_pairs);
  pack_query_pairs(s.do_rows, padded / kBf16Unit, x.dv, s.do_pairs);
  interleave_rows(s.q_rows, padded, x.d, s.q_row_pairs);
  interleave_rows(s.do_rows, padded, x.dv, s.do_row_pairs);
  load_row_statistics(p, begin, rows, head, s.lse, s.delta);
  zero(s.dq, padded * x.d);
}

inline size_t bf16_backward_scratch(const BackwardProblem& p) {
  return Bf16BackwardScratch(nullptr, int64_t{p.tiles_per_segment} * kKTile, round_up(p.dims.head_dim, kBf16Unit),
                             round_up(p.dims.head_dim_v, kBf16Unit))
      .parts.used();
}

inline void bf16_backward(const BackwardProblem& p, int32_t segment, int64_t kv_head, void* base) {
  const Bf16Registers registers;
  const int32_t first_tile = segment * p.tiles_per_segment;
  const int32_t last_tile = static_cast<int32_t>(smaller(first_tile + p.tiles_per_segment, p.num_k_tiles));
  const int64_t first_key = int64_t{first_tile} * kKTile;
  const int64_t keys = smaller(int64_t{last_tile} * kKTile, p.dims.total_k) - first_key;
  const Bf16Extents x = {.d = round_up(p.dims.head_dim, kBf16Unit),
                         .dv = round_up(p.dims.head_dim_v, kBf16Unit),
                         .keys = int64_t{p.tiles_per_segment} * kKTile,
                         .factor = score_factor(p.softmax_scale)};
  const Bf16BackwardScratch s(base, x.keys, x.d, x.dv);

  pack_bf16_rows(p.k, first_key, keys, x.keys, kv_head, p.dims.head_dim, x.d, s.k);
  pack_bf16_rows(p.v, first_key, keys, x.keys, kv_head, p.dims.head_dim_v, x.dv, s.v);
  interleave_rows(s.k, x.keys, x.d, s.k_pairs);
  transpose_pairs(s.k_pairs, x.d, x.keys / 2, x.d, s.k_columns, (x.keys + kBf16Padding) / 2);
  zero(s.dk, x.keys * x.d);
  zero(s.dv, x.keys * x.dv);

  for (int32_t q_tile = p.segment_q_tiles[2 * segment]; q_tile < p.segment_q_tiles[2 * segment + 1]; ++q_tile) {
    const SegmentRuns found = runs_of_segment(p, q_tile, first_tile, last_tile);
    if (found.begin == found.end) continue;
    const int64_t begin = int64_t{q_tile} * kQTile;
    const int32_t rows = static_cast<int32_t>(smaller(kQTile, p.dims.total_q - begin));
    const int32_t panels = static_cast<int32_t>(round_up(rows, kBf16Unit) / kBf16Unit);
    const int64_t first_head = kv_head * group_size(p.dims), last_head = first_head + group_size(p.dims) - 1;
    for (int64_t head = first_head; head <= last_head; ++head) {
      bf16_load_queries(p, begin, rows, head, x, s);
      NextQueries next = {.q_tile = head < last_head ? q_tile : q_tile + 1,
                          .head = head < last_head ? head + 1 : first_head};
      for (int32_t r = found.begin; r < found.end; ++r) {
        const TileRun run = p.plan.runs[r];
        Cover covers[kBf16Panels];
        bf16_cover_panels(p.plan, run.mask_id, rows, covers);
        const int64_t run_end = smaller(run.tile + run.count, last_tile);
        for (int64_t tile = larger(run.tile, first_tile); tile < run_end; ++tile) {
          const int64_t key = tile * kKTile - first_key;
          for (int32_t panel = 0; panel < panels; ++panel) {
            if (covers[panel].empty()) continue;
            prefetch_panel<BFloat16>(p, next);
            bf16_backward_panel(p.plan, run.mask_id, panel * kBf16Unit, covers[panel], key, x, s);
          }
          bf16_add_key_gradients(covers, panels, key, x, s);
        }
      }
      for (int32_t panel = 0; panel < panels; ++panel)
        transpose(s.dq + panel * kBf16Unit * x.d, kBf16Unit, x.d, kBf16Unit, s.dq_rows + panel * kBf16Unit * x.d, x.d);
      add_dq(p, q_tile, head, segment, found.predecessor, rows, x.d, s.dq_rows);
    }
  }
  write_key_gradients<BFloat16>(p, first_key, keys, kv_head, s.dk, x.d, s.dv, x.dv);
}

}  // namespace ATTNMUX_ISA
}  // namespace attnmux::tiled_cpu
