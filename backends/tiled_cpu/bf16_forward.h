// Forward pass of one (q tile, head) in bf16: the algorithm of forward.h with both products in bf16, summed in fp32.
// Probabilities are rounded to bf16 before they meet V, their sum is not.
//
//   S^T [keys, 32] = K (rows as they are) x Q^T (pairs, packed once)
//   O^T [dv, 32] += V^T (transposed once, by bf16_pack_keys) x P^T (pairs, made by the softmax)
//
// Head dims, keys and queries are padded to units of 32; everything else is as in forward.h.
#pragma once

#include "bf16_softmax.h"
#include "forward.h"

namespace attnmux::tiled_cpu {
namespace ATTNMUX_ISA {

constexpr int32_t kBf16Panels = kQTile / kBf16Unit;
// Rows of a tile's width are one cache line longer: at a stride of a power of two they would share few sets of L1.
constexpr int64_t kBf16Padding = 32;
constexpr int64_t kVColumns = kKTile + kBf16Padding;

struct Bf16ForwardScratch {
  ScratchParts parts;
  BFloat16 *q_rows, *q_pairs;  // [32, d], [panels, d / 2, 32, 2]
  float* scores;               // [kKTile, 32]
  BFloat16* p_pairs;           // [kKTile / 2, 32, 2]
  float *out, *out_rows;       // [panels, dv, 32], [32, dv]
  RowState<float>* state;      // [panels]

  Bf16ForwardScratch(void* base, int64_t d, int64_t dv) : parts(base) {
    q_rows = parts.take<BFloat16>(kBf16Unit * d);
    q_pairs = parts.take<BFloat16>(kQTile * d);
    scores = parts.take<float>(kKTile * kBf16Unit);
    p_pairs = parts.take<BFloat16>(kKTile * kBf16Unit);
    out = parts.take<float>(kQTile * dv);
    out_rows = parts.take<float>(kBf16Unit * dv);
    state = parts.take<RowState<float>>(kBf16Panels);
  }
};

// rows [panels * 32, d] -> panels [d / 2, 32, 2], the right operand of a product along d.
inline void pack_query_pairs(const BFloat16* rows, int64_t panels, int64_t d, BFloat16* pairs) {
  for (int64_t panel = 0; panel < panels; ++panel)
    transpose_pairs(rows + panel * 32 * d, d / 2, 32, d / 2, pairs + panel * 32 * d, 32);
}

// Covers of all panels of a tile with `rows` queries.
inline void bf16_cover_panels(const PlanView& plan, int32_t mask_id, int32_t rows, Cover* covers) {
  for (int32_t row = 0; row < rows; row += kBf16Unit) {
    const int32_t count = static_cast<int32_t>(smaller(kBf16Unit, rows - row));
    covers[row / kBf16Unit] = widen(cover_of(plan, mask_id, row, count), kBf16Unit);
  }
}

inline void bf16_forward_panel(const PlanView& plan, int32_t mask_id, int32_t row, const Cover& cover, int64_t d,
                               int64_t dv, float factor, const BFloat16* q_pairs, const BFloat16* k,
                               const BFloat16* v_columns, const Bf16ForwardScratch& s, float* out,
                               RowState<float>& state) {
  const int64_t keys = cover.key_end - cover.key_begin;
  bf16_gemm(keys, kBf16Unit, d, k, d, q_pairs, 2 * kBf16Unit, s.scores, kBf16Unit, /*add=*/false);
  if (cover.partial) mask_scores(plan, mask_id, row, cover, 0, kBf16Unit, masked_score(factor), s.scores);
  if (softmax_step_bf16(s.scores, keys, factor, state, s.p_pairs)) {
    const Vec<float> correction[2] = {load(state.correction), load(state.correction + 16)};
    for (int64_t c = 0; c < dv; ++c) {
      store(out + c * 32, load(out + c * 32) * correction[0]);
      store(out + c * 32 + 16, load(out + c * 32 + 16) * correction[1]);
    }
  }
  bf16_gemm(dv, kBf16Unit, keys, v_columns, kVColumns, s.p_pairs, 2 * kBf16Unit, out, kBf16Unit, /*add=*/true);
}

// K [kKTile, d], then V^T [dv, kVColumns].
inline size_t bf16_packed_tile_bytes(const Dims& dims) {
  return static_cast<size_t>(
      (kKTile * round_up(dims.head_dim, kBf16Unit) + kVColumns * round_up(dims.head_dim_v, kBf16Unit)) *
      sizeof(BFloat16));
}

inline void bf16_pack_keys(const ForwardProblem& p, int64_t k_tile, int64_t kv_head, int64_t d, int64_t dv,
                           BFloat16* k) {
  constexpr int64_t kKeys = 32;  // transposed at a time
  const int64_t begin = k_tile * kKTile, keys = smaller(kKTile, p.dims.total_k - begin);
  BFloat16* const v_columns = k + kKTile * d;
  alignas(64) BFloat16 rows[kKeys * 512], pairs[kKeys * 512];  // head_dim_v is at most 512
  for (int64_t first = 0; first < kKTile; first += kKeys) {
    const int64_t count = larger(0, smaller(kKeys, keys - first));
    pack_bf16_rows(p.k, begin + first, count, kKeys, kv_head, p.dims.head_dim, d, k + first * d);
    pack_bf16_rows(p.v, begin + first, count, kKeys, kv_head, p.dims.head_dim_v, dv, rows);
    interleave_rows(rows, kKeys, dv, pairs);
    transpose_pairs(pairs, dv, kKeys / 2, dv, v_columns + first, kVColumns / 2);
  }
}

inline size_t bf16_forward_scratch(const ForwardProblem& p) {
  return Bf16ForwardScratch(nullptr, round_up(p.dims.head_dim, kBf16Unit), round_up(p.dims.head_dim_v, kBf16Unit))
      .parts.used();
}

inline void bf16_forward(const ForwardProblem& p, const ForwardItem& item, const ForwardItem& likely_next, void* base) {
  const Bf16Registers registers;
  const int64_t d = round_up(p.dims.head_dim, kBf16Unit), dv = round_up(p.dims.head_dim_v, kBf16Unit);
  const int64_t head = item.head, begin = int64_t{item.q_tile} * kQTile;
  const int32_t rows = static_cast<int32_t>(smaller(kQTile, p.dims.total_q - begin));
  const int64_t kv_head = head / group_size(p.dims);
  const float factor = score_factor(p.softmax_scale);
  const Bf16ForwardScratch s(base, d, dv);

  for (int32_t row = 0; row < rows; row += kBf16Unit) {
    pack_bf16_rows(p.q, begin + row, smaller(kBf16Unit, rows - row), kBf16Unit, head, p.dims.head_dim, d, s.q_rows);
    pack_query_pairs(s.q_rows, 1, d, s.q_pairs + row * d);
  }
  zero(s.out, kQTile * dv);
  for (int32_t i = 0; i < kBf16Panels; ++i) reset(s.state[i]);

  const auto pack = [&](int64_t tile, char* to) {
    bf16_pack_keys(p, tile, kv_head, d, dv, reinterpret_cast<BFloat16*>(to));
  };
  Cover covers[kBf16Panels];
  for (TileWalk at = first_tile(p.plan, item.q_tile); !at.done();) {
    const TileRun run = p.plan.runs[at.run];
    if (at.tile == run.tile) bf16_cover_panels(p.plan, run.mask_id, rows, covers);
    const BFloat16* const k = reinterpret_cast<const BFloat16*>(packed_tile(p.packed, p.plan, at, kv_head, pack));
    const BFloat16* const v_columns = k + kKTile * d;
    const TileWalk next = tile_after(p.plan, at);
    for (int32_t row = 0; row < rows; row += kBf16Unit) {
      const Cover& cover = covers[row / kBf16Unit];
      if (cover.empty()) continue;
      if (next.done()) {
        prefetch_ends<BFloat16>(p, item, likely_next, row);
      } else {
        prefetch_keys<BFloat16>(p, next.tile, kv_head, row / kBf16Unit, kBf16Panels);
      }
      bf16_forward_panel(p.plan, run.mask_id, row, cover, d, dv, factor, s.q_pairs + row * d, k + cover.key_begin * d,
                         v_columns + cover.key_begin, s, s.out + row * dv, s.state[row / kBf16Unit]);
    }
    at = next;
  }
  for (int32_t row = 0; row < rows; row += kBf16Unit) {
    transpose(s.out + row * dv, kBf16Unit, dv, kBf16Unit, s.out_rows, dv);
    for (int32_t r = row; r < smaller(rows, row + kBf16Unit); ++r)
      write_row<BFloat16>(p, begin + r, r, head, s.out_rows + (r - row) * dv, s.state);
  }
}

}  // namespace ATTNMUX_ISA
}  // namespace attnmux::tiled_cpu
