// Forward pass of one (q tile, head): FlashAttention-2, algorithm 1 (arXiv 2307.08691), over the runs of a tile plan.
//
//   once: pack every k tile, some kv heads at a time: K [kKTile, d], V [kKTile, dv]
//   for each k tile of the plan that the q tile meets
//     for each panel of kPanel queries
//       S^T [keys, kPanel] = K Q^T          narrowed to what is attended, as is P V
//       mask (partial tiles), online softmax down the rows
//       O [kPanel, dv] += P V               P^T is read transposed in place
//
// Scores are kept transposed: a query is a vector lane, which makes softmax and masks plain vertical code, and lets
// both products read their operands without repacking. Q is packed once, transposed and scaled.
// Memory: a packed copy of K and V of a few heads, and scratch of a few tiles a worker. The copy is linear in the
// length and pays: in THD the rows of one head lie far apart, and every q tile would fetch them past the prefetcher
// again (measured at 8192 tokens, 9 heads, d 64, fp32: a fifth of the time). One worker owns an output row: no atomics,
// and the result does not depend on the number of threads.
#pragma once

#include "pack.h"
#include "panel_products.h"
#include "scratch.h"
#include "softmax.h"

namespace attnmux::tiled_cpu {
namespace ATTNMUX_ISA {

template <class T>
constexpr int32_t kPanels = kQTile / kPanel<T>;

template <class T>
struct ForwardScratch {
  ScratchParts parts;
  T* q_rows;           // [kPanel, d]
  T* q_columns;        // [panels, d, kPanel]
  T* scores;           // [kKTile, kPanel]
  T* out;              // [kQTile, dv]
  RowState<T>* state;  // [panels]

  ForwardScratch(void* base, int64_t d, int64_t dv) : parts(base) {
    q_rows = parts.take<T>(kPanel<T> * d);
    q_columns = parts.take<T>(kQTile * d);
    scores = parts.take<T>(kKTile * kPanel<T>);
    out = parts.take<T>(kQTile * dv);
    state = parts.take<RowState<T>>(kPanels<T>);
  }
};

// Packs queries [begin, begin + rows) times `scale` as panels [padded, kPanel]; lanes beyond `rows` are 0.
template <class S>
inline void pack_panels(const View& view, int64_t begin, int64_t rows, int64_t head, int64_t dim, int64_t padded,
                        Compute<S> scale, Compute<S>* staging, Compute<S>* panels) {
  using T = Compute<S>;
  for (int64_t row = 0; row < rows; row += kPanel<T>) {
    const int64_t count = smaller(kPanel<T>, rows - row);
    pack_rows<S>(view, begin + row, count, head, dim, padded, staging);
    zero(staging + count * padded, (kPanel<T> - count) * padded);
    transpose_panel(staging, padded, scale, panels + row * padded);
  }
}

// The k tile that comes after `tile` of run `r` in its q tile; -1 behind the last.
inline int64_t next_k_tile(const PlanView& plan, int32_t q_tile, int32_t r, int64_t tile) {
  if (tile + 1 < plan.runs[r].tile + plan.runs[r].count) return tile + 1;
  return r + 1 < plan.run_offsets[q_tile + 1] ? plan.runs[r + 1].tile : -1;
}

// One panel against the packed keys of its cover: k and v start at cover.key_begin.
template <class T>
inline void forward_panel(const PlanView& plan, int32_t mask_id, int32_t row, const PanelCover<T>& cover,
                          int64_t head_dim, int64_t d, int64_t dv, const T* q_columns, const T* k, const T* v,
                          T* scores, T* out, RowState<T>& state) {
  const int64_t keys = cover.key_end - cover.key_begin;
  const int32_t column = cover.row_begin / kWidth<T> * kWidth<T>;
  const int32_t column_end = static_cast<int32_t>(round_up(cover.row_end, kWidth<T>));
  score_products(cover, head_dim, k, d, q_columns, scores);
  if (cover.partial) mask_scores(plan, mask_id, row, cover, column, column_end, kMasked<T>, scores);
  if (softmax_step(scores, keys, column, column_end, state)) {
    for (int32_t r = cover.row_begin; r < cover.row_end; ++r) {
      const Vec<T> correction = splat(state.correction[r]);
      for (int64_t c = 0; c < dv; c += kWidth<T>) store(out + r * dv + c, load(out + r * dv + c) * correction);
    }
  }
  add_along_keys(cover, scores, v, dv, out);
}

// The rows that results of a panel will be written to: a store would wait for each of them to be read first.
template <class S>
inline void prefetch_out(const ForwardProblem& p, int64_t token, int64_t rows, int64_t head) {
  const S* const first = static_cast<const S*>(p.out.data) + token * p.out.token + head * p.out.head;
  for (int64_t r = 0; r < rows; ++r) prefetch_row(first + r * p.out.token, p.dims.head_dim_v);
}

// Row `r` of a tile whose first token is `token - r`: out times 1 / sum, and lse. 0 and -inf for a row without keys.
template <class S>
inline void write_row(const ForwardProblem& p, int64_t token, int64_t r, int64_t head, const Compute<S>* out,
                      const RowState<Compute<S>>* state) {
  using T = Compute<S>;
  const T sum = state[r / kPanel<T>].sum[r % kPanel<T>];
  const T maximum = state[r / kPanel<T>].maximum[r % kPanel<T>];
  const bool empty = sum == 0;  // a row with keys holds at least its maximum's exponential, 1
  S* const to = static_cast<S*>(p.out.data) + token * p.out.token + head * p.out.head;
  unpack_row<S>(out, p.dims.head_dim_v, empty ? T(0) : 1 / sum, to, p.out.dim);
  static_cast<T*>(p.lse)[token * p.dims.heads_q + head] =
      empty ? -T(__builtin_inf()) : T((double{maximum} + __builtin_log2(double{sum})) * kLn2);
}

template <class S>
size_t packed_tile_bytes(const ForwardProblem& p) {
  using T = Compute<S>;
  return static_cast<size_t>(kKTile * (round_up(p.dims.head_dim, kWidth<T>) + round_up(p.dims.head_dim_v, kWidth<T>)) *
                             sizeof(T));
}

inline char* packed_tile(const ForwardProblem& p, int64_t k_tile, int64_t kv_head, size_t bytes) {
  return static_cast<char*>(p.packed) +
         ((kv_head - p.first_kv_head) * p.num_k_tiles + k_tile) * static_cast<int64_t>(bytes);
}

// Token by token, for in THD the heads of a token lie side by side.
template <class S>
void pack_keys(const ForwardProblem& p, int32_t k_tile, int64_t kv_heads) {
  using T = Compute<S>;
  const int64_t d = round_up(p.dims.head_dim, kWidth<T>), dv = round_up(p.dims.head_dim_v, kWidth<T>);
  const int64_t begin = int64_t{k_tile} * kKTile, keys = smaller(kKTile, p.dims.total_k - begin);
  const int64_t padding = round_up(keys, kGemmRows) - keys;
  const size_t tile_bytes = packed_tile_bytes<S>(p);
  const auto k_of = [&](int64_t head) { return reinterpret_cast<T*>(packed_tile(p, k_tile, head, tile_bytes)); };
  for (int64_t key = 0; key < keys; ++key) {
    for (int64_t head = p.first_kv_head; head < p.first_kv_head + kv_heads; ++head) {
      T* const k = k_of(head);
      const int64_t ahead = begin + smaller(key + kRowsAhead, keys - 1);
      prefetch_row(row_of<S>(p.k, ahead, head), p.dims.head_dim);
      prefetch_row(row_of<S>(p.v, ahead, head), p.dims.head_dim_v);
      pack_row(row_of<S>(p.k, begin + key, head), p.k.dim, p.dims.head_dim, d, k + key * d);
      pack_row(row_of<S>(p.v, begin + key, head), p.v.dim, p.dims.head_dim_v, dv, k + kKTile * d + key * dv);
    }
  }
  for (int64_t head = p.first_kv_head; head < p.first_kv_head + kv_heads; ++head) {
    zero(k_of(head) + keys * d, padding * d);
    zero(k_of(head) + kKTile * d + keys * dv, padding * dv);
  }
}

template <class S>
size_t forward_scratch(const ForwardProblem& p) {
  using T = Compute<S>;
  return ForwardScratch<T>(nullptr, round_up(p.dims.head_dim, kWidth<T>), round_up(p.dims.head_dim_v, kWidth<T>))
      .parts.used();
}

template <class S>
void forward(const ForwardProblem& p, int32_t q_tile, int64_t head, void* base) {
  using T = Compute<S>;
  const int64_t d = round_up(p.dims.head_dim, kWidth<T>), dv = round_up(p.dims.head_dim_v, kWidth<T>);
  const int64_t begin = int64_t{q_tile} * kQTile;
  const int32_t rows = static_cast<int32_t>(smaller(kQTile, p.dims.total_q - begin));
  const int64_t kv_head = head / group_size(p.dims);
  const size_t tile_bytes = packed_tile_bytes<S>(p);
  const ForwardScratch<T> scratch(base, d, dv);

  pack_panels<S>(p.q, begin, rows, head, p.dims.head_dim, d, T(p.softmax_scale * kLog2E), scratch.q_rows,
                 scratch.q_columns);
  zero(scratch.out, round_up(rows, kGemmRows) * dv);
  for (int32_t i = 0; i < kPanels<T>; ++i) reset(scratch.state[i]);

  for (int32_t r = p.plan.run_offsets[q_tile]; r < p.plan.run_offsets[q_tile + 1]; ++r) {
    const TileRun run = p.plan.runs[r];
    PanelCover<T> covers[kPanels<T>];
    cover_panels(p.plan, run.mask_id, rows, covers);
    for (int64_t tile = run.tile; tile < run.tile + run.count; ++tile) {
      const T* const k = reinterpret_cast<const T*>(packed_tile(p, tile, kv_head, tile_bytes));
      const T* const v = k + kKTile * d;
      const int64_t next = next_k_tile(p.plan, q_tile, r, tile);
      for (int32_t row = 0; row < rows; row += kPanel<T>) {
        const PanelCover<T>& cover = covers[row / kPanel<T>];
        if (cover.empty()) continue;
        if (next >= 0) {
          prefetch_part(packed_tile(p, next, kv_head, tile_bytes), tile_bytes, row / kPanel<T>, kPanels<T>);
        } else {
          prefetch_out<S>(p, begin + row, smaller(kPanel<T>, rows - row), head);
        }
        forward_panel(p.plan, run.mask_id, row, cover, p.dims.head_dim, d, dv, scratch.q_columns + row * d,
                      k + cover.key_begin * d, v + cover.key_begin * dv, scratch.scores, scratch.out + row * dv,
                      scratch.state[row / kPanel<T>]);
      }
    }
  }
  for (int32_t r = 0; r < rows; ++r) write_row<S>(p, begin + r, r, head, scratch.out + r * dv, scratch.state);
}

}  // namespace ATTNMUX_ISA
}  // namespace attnmux::tiled_cpu
