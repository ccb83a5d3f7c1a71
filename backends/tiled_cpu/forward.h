// Forward pass of one (q tile, head): FlashAttention-2, algorithm 1 (arXiv 2307.08691), over the runs of a tile plan.
//
//   for each k tile of the plan that the q tile meets
//     pack K [kKTile, d] and V [kKTile, dv], unless a worker has done so before
//     for each panel of kPanel queries
//       S^T [keys, kPanel] = K Q^T          narrowed to what is attended, as is P V
//       mask (partial tiles), online softmax down the rows
//       O [kPanel, dv] += P V               P^T is read transposed in place
//
// Scores are kept transposed: a query is a vector lane, which makes softmax and masks plain vertical code, and lets
// both products read their operands without repacking. Q is packed once, transposed and scaled.
// Memory: a packed copy of K and V of a few heads, and scratch of a few tiles a worker. The copy is linear in the
// length and pays: in THD the rows of one head lie far apart, and every q tile would fetch them past the prefetcher
// again (measured at 8192 tokens, 9 heads, d 64, fp32: a fifth of the time). One worker owns an output row,
// so the result does not depend on the number of threads.
#pragma once

#include "packed_keys.h"
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

// Rows [row, row + kPanel) of what a q tile wants after its last k tile: the rows it writes, for a store waits for its
// line to be read first, and the queries that this worker is likely to take next.
template <class S>
inline void prefetch_ends(const ForwardProblem& p, const ForwardItem& item, const ForwardItem& next, int64_t row) {
  const View out = {.data = p.out.data, .token = p.out.token, .head = p.out.head, .dim = p.out.dim};
  for (int64_t r = row; r < row + kPanel<Compute<S>>; ++r) {
    const int64_t token = int64_t{item.q_tile} * kQTile + r, query = int64_t{next.q_tile} * kQTile + r;
    if (token < p.dims.total_q) prefetch_row(row_of<S>(out, token, item.head), p.dims.head_dim_v);
    if (query < p.dims.total_q) prefetch_row(row_of<S>(p.q, query, next.head), p.dims.head_dim);
  }
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
size_t packed_tile_bytes(const Dims& dims) {
  using T = Compute<S>;
  return static_cast<size_t>(kKTile * (round_up(dims.head_dim, kWidth<T>) + round_up(dims.head_dim_v, kWidth<T>)) *
                             sizeof(T));
}

template <class S>
void pack_keys(const ForwardProblem& p, int64_t k_tile, int64_t kv_head, int64_t d, int64_t dv, Compute<S>* k) {
  const int64_t begin = k_tile * kKTile, keys = smaller(kKTile, p.dims.total_k - begin);
  const int64_t padding = round_up(keys, kGemmRows) - keys;
  Compute<S>* const v = k + kKTile * d;
  pack_rows<S>(p.k, begin, keys, kv_head, p.dims.head_dim, d, k);
  pack_rows<S>(p.v, begin, keys, kv_head, p.dims.head_dim_v, dv, v);
  zero(k + keys * d, padding * d);
  zero(v + keys * dv, padding * dv);
}

template <class S>
size_t forward_scratch(const ForwardProblem& p) {
  using T = Compute<S>;
  return ForwardScratch<T>(nullptr, round_up(p.dims.head_dim, kWidth<T>), round_up(p.dims.head_dim_v, kWidth<T>))
      .parts.used();
}

template <class S>
void forward(const ForwardProblem& p, const ForwardItem& item, const ForwardItem& likely_next, void* base) {
  using T = Compute<S>;
  const int64_t d = round_up(p.dims.head_dim, kWidth<T>), dv = round_up(p.dims.head_dim_v, kWidth<T>);
  const int64_t head = item.head, begin = int64_t{item.q_tile} * kQTile;
  const int32_t rows = static_cast<int32_t>(smaller(kQTile, p.dims.total_q - begin));
  const int64_t kv_head = head / group_size(p.dims);
  const ForwardScratch<T> scratch(base, d, dv);

  pack_panels<S>(p.q, begin, rows, head, p.dims.head_dim, d, T(p.softmax_scale * kLog2E), scratch.q_rows,
                 scratch.q_columns);
  zero(scratch.out, round_up(rows, kGemmRows) * dv);
  for (int32_t i = 0; i < kPanels<T>; ++i) reset(scratch.state[i]);

  const auto pack = [&](int64_t tile, char* to) { pack_keys<S>(p, tile, kv_head, d, dv, reinterpret_cast<T*>(to)); };
  PanelCover<T> covers[kPanels<T>];
  for (TileWalk at = first_tile(p.plan, item.q_tile); !at.done();) {
    const TileRun run = p.plan.runs[at.run];
    if (at.tile == run.tile) cover_panels(p.plan, run.mask_id, rows, covers);
    const T* const k = reinterpret_cast<const T*>(packed_tile(p.packed, p.plan, at, kv_head, pack));
    const T* const v = k + kKTile * d;
    const TileWalk next = tile_after(p.plan, at);
    for (int32_t row = 0; row < rows; row += kPanel<T>) {
      const PanelCover<T>& cover = covers[row / kPanel<T>];
      if (cover.empty()) continue;
      if (next.done()) {
        prefetch_ends<S>(p, item, likely_next, row);
      } else {
        prefetch_keys<S>(p, next.tile, kv_head, row / kPanel<T>, kPanels<T>);
      }
      forward_panel(p.plan, run.mask_id, row, cover, p.dims.head_dim, d, dv, scratch.q_columns + row * d,
                    k + cover.key_begin * d, v + cover.key_begin * dv, scratch.scores, scratch.out + row * dv,
                    scratch.state[row / kPanel<T>]);
    }
    at = next;
  }
  for (int32_t r = 0; r < rows; ++r) write_row<S>(p, begin + r, r, head, scratch.out + r * dv, scratch.state);
}

}  // namespace ATTNMUX_ISA
}  // namespace attnmux::tiled_cpu
