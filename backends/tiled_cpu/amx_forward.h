// Forward pass of one (q tile, head) in bf16 on AMX: the algorithm of forward.h with both products in bf16, summed in
// fp32. Probabilities are rounded to bf16 before they meet V, their sum is not.
//
//   S^T [keys, 32] = K (rows as they are) x Q^T (pairs, packed once)
//   O^T [dv, 32] += V^T (transposed while packing) x P^T (pairs, made by the softmax)
//
// Head dims, keys and queries are padded to units of 32; everything else is as in forward.h.
#pragma once

#include "amx_softmax.h"
#include "forward.h"

namespace attnmux::tiled_cpu {
namespace ATTNMUX_ISA {

constexpr int32_t kAmxPanels = kQTile / kAmxUnit;
// Rows of a tile's width are one cache line longer: at a stride of a power of two they would share few sets of L1.
constexpr int64_t kAmxPadding = 32;
constexpr int64_t kVColumns = kKTile + kAmxPadding;

struct AmxForwardScratch {
  ScratchParts parts;
  BFloat16 *q_rows, *q_pairs;              // [32, d], [panels, d / 2, 32, 2]
  BFloat16* k;                             // [kKTile, d]
  BFloat16 *v_rows, *v_pairs, *v_columns;  // [kKTile, dv], [kKTile / 2, dv, 2], [dv, kVColumns]
  float* scores;                           // [kKTile, 32]
  BFloat16* p_pairs;                       // [kKTile / 2, 32, 2]
  float *out, *out_rows;                   // [panels, dv, 32], [32, dv]
  RowState<float>* state;                  // [panels]

  AmxForwardScratch(void* base, int64_t d, int64_t dv) : parts(base) {
    q_rows = parts.take<BFloat16>(kAmxUnit * d);
    q_pairs = parts.take<BFloat16>(kQTile * d);
    k = parts.take<BFloat16>(kKTile * d);
    v_rows = parts.take<BFloat16>(kKTile * dv);
    v_pairs = parts.take<BFloat16>(kKTile * dv);
    v_columns = parts.take<BFloat16>(kVColumns * dv);
    scores = parts.take<float>(kKTile * kAmxUnit);
    p_pairs = parts.take<BFloat16>(kKTile * kAmxUnit);
    out = parts.take<float>(kQTile * dv);
    out_rows = parts.take<float>(kAmxUnit * dv);
    state = parts.take<RowState<float>>(kAmxPanels);
  }
};

// rows [panels * 32, d] -> panels [d / 2, 32, 2], the right operand of a product along d.
inline void pack_query_pairs(const BFloat16* rows, int64_t panels, int64_t d, BFloat16* pairs) {
  for (int64_t panel = 0; panel < panels; ++panel)
    transpose_pairs(rows + panel * 32 * d, d / 2, 32, d / 2, pairs + panel * 32 * d, 32);
}

inline void amx_forward_panel(const PlanView& plan, int32_t mask_id, int32_t row, const Cover& cover, int64_t d,
                              int64_t dv, float factor, const BFloat16* q_pairs, const BFloat16* k,
                              const BFloat16* v_columns, const AmxForwardScratch& s, float* out,
                              RowState<float>& state) {
  const int64_t keys = cover.key_end - cover.key_begin;
  amx_gemm(keys, kAmxUnit, d, k, d, q_pairs, 2 * kAmxUnit, s.scores, kAmxUnit, /*add=*/false);
  if (cover.partial) mask_scores(plan, mask_id, row, cover, 0, kAmxUnit, masked_score(factor), s.scores);
  if (softmax_step_bf16(s.scores, keys, factor, state, s.p_pairs)) {
    const Vec<float> correction[2] = {load(state.correction), load(state.correction + 16)};
    for (int64_t c = 0; c < dv; ++c) {
      store(out + c * 32, load(out + c * 32) * correction[0]);
      store(out + c * 32 + 16, load(out + c * 32 + 16) * correction[1]);
    }
  }
  amx_gemm(dv, kAmxUnit, keys, v_columns, kVColumns, s.p_pairs, 2 * kAmxUnit, out, kAmxUnit, /*add=*/true);
}

inline size_t amx_forward_scratch(const ForwardProblem& p) {
  return AmxForwardScratch(nullptr, round_up(p.dims.head_dim, kAmxUnit), round_up(p.dims.head_dim_v, kAmxUnit))
      .parts.used();
}

inline void amx_forward(const ForwardProblem& p, int32_t q_tile, int64_t head, void* base) {
  const AmxTiles tiles;
  const int64_t d = round_up(p.dims.head_dim, kAmxUnit), dv = round_up(p.dims.head_dim_v, kAmxUnit);
  const int64_t begin = int64_t{q_tile} * kQTile;
  const int32_t rows = static_cast<int32_t>(smaller(kQTile, p.dims.total_q - begin));
  const int64_t kv_head = head / group_size(p.dims);
  const float factor = score_factor(p.softmax_scale);
  const AmxForwardScratch s(base, d, dv);

  for (int32_t row = 0; row < rows; row += kAmxUnit) {
    pack_bf16_rows(p.q, begin + row, smaller(kAmxUnit, rows - row), kAmxUnit, head, p.dims.head_dim, d, s.q_rows);
    pack_query_pairs(s.q_rows, 1, d, s.q_pairs + row * d);
  }
  zero(s.out, kQTile * dv);
  for (int32_t i = 0; i < kAmxPanels; ++i) reset(s.state[i]);

  for (int32_t r = p.plan.run_offsets[q_tile]; r < p.plan.run_offsets[q_tile + 1]; ++r) {
    const TileRun run = p.plan.runs[r];
    Cover covers[kAmxPanels];
    const Cover all = widen(cover_panels<float>(p.plan, run.mask_id, rows, covers));
    for (int64_t tile = run.tile; tile < run.tile + run.count; ++tile) {
      const int64_t first_key = tile * kKTile + all.key_begin, padded = all.key_end - all.key_begin;
      const int64_t keys = smaller(padded, p.dims.total_k - first_key);
      pack_bf16_rows(p.k, first_key, keys, padded, kv_head, p.dims.head_dim, d, s.k);
      pack_bf16_rows(p.v, first_key, keys, padded, kv_head, p.dims.head_dim_v, dv, s.v_rows);
      interleave_rows(s.v_rows, padded, dv, s.v_pairs);
      transpose_pairs(s.v_pairs, dv, padded / 2, dv, s.v_columns, kVColumns / 2);
      for (int32_t row = 0; row < rows; row += kAmxUnit) {
        if (covers[row / kAmxUnit].empty()) continue;
        const Cover cover = widen(covers[row / kAmxUnit]);
        const int64_t skip = cover.key_begin - all.key_begin;
        amx_forward_panel(p.plan, run.mask_id, row, cover, d, dv, factor, s.q_pairs + row * d, s.k + skip * d,
                          s.v_columns + skip, s, s.out + row * dv, s.state[row / kAmxUnit]);
      }
    }
  }
  for (int32_t row = 0; row < rows; row += kAmxUnit) {
    transpose(s.out + row * dv, kAmxUnit, dv, kAmxUnit, s.out_rows, dv);
    for (int32_t r = row; r < smaller(rows, row + kAmxUnit); ++r)
      write_row<BFloat16>(p, begin + r, r, head, s.out_rows + (r - row) * dv, s.state);
  }
}

}  // namespace ATTNMUX_ISA
}  // namespace attnmux::tiled_cpu
