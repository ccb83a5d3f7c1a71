// Backward pass: FlashAttention-2, algorithm 2 (arXiv 2307.08691), in one sweep of five products a tile.
//
// One worker takes a (segment of k tiles, kv head) and keeps its dK and dV, summed over the query heads of the group:
//
//   for each q tile that meets the segment, ascending; for each query head of the group
//     pack Q and dO, as rows and as panels
//     for each k tile of the segment in the q tile's runs, for each panel of kPanel queries
//       S^T = K Q^T,  dP^T = V dO^T              [keys, kPanel], narrowed to what is attended
//       P^T = exp(S^T - lse),  dS^T = P^T (dP^T - delta)
//       dV += P^T dO,  dK += dS^T Q,  dQ_tile += dS K
//     add dQ_tile to dQ
//
// dQ rows are shared by the segments of a head. They add in the order of segments: each waits until its predecessor
// in that q tile has added (BackwardProblem::dq_turn), so there is no race, no atomic addition, and the result is the
// same for any number of threads. The order in which workers take segments makes the wait short and free of deadlock:
// a segment waits only for segments that were started before it, and those never wait for it.
// Memory: scratch of one segment a worker, delta, and for 16-bit types dQ in fp32: linear in the sequence.
#pragma once

#include <sched.h>

#include "forward.h"

namespace attnmux::tiled_cpu {
namespace ATTNMUX_ISA {

template <class T>
struct BackwardScratch {
  ScratchParts parts;
  T *k, *dk;                // [segment keys, d]
  T *v, *dv;                // [segment keys, dv]
  T *q_rows, *q_columns;    // [kQTile, d], [panels, d, kPanel]
  T *do_rows, *do_columns;  // [kQTile, dv], [panels, dv, kPanel]
  T* dq;                    // [kQTile, d]
  T *scores, *dp;           // [kKTile, kPanel]
  T *lse, *delta;           // [kQTile]

  BackwardScratch(void* base, int64_t keys, int64_t d, int64_t dv_padded) : parts(base) {
    k = parts.take<T>(keys * d);
    dk = parts.take<T>(keys * d);
    v = parts.take<T>(keys * dv_padded);
    dv = parts.take<T>(keys * dv_padded);
    q_rows = parts.take<T>(kQTile * d);
    q_columns = parts.take<T>(kQTile * d);
    do_rows = parts.take<T>(kQTile * dv_padded);
    do_columns = parts.take<T>(kQTile * dv_padded);
    dq = parts.take<T>(kQTile * d);
    scores = parts.take<T>(kKTile * kPanel<T>);
    dp = parts.take<T>(kKTile * kPanel<T>);
    lse = parts.take<T>(kQTile);
    delta = parts.take<T>(kQTile);
  }
};

// delta = rowsum(dout * out) of one q tile, token by token, for in THD the heads of a token lie side by side; and dq =
// 0 where no tile will write it.
template <class S>
void delta(const BackwardProblem& p, int32_t q_tile, void* base) {
  using T = Compute<S>;
  const int64_t dv = p.dims.head_dim_v, padded = round_up(dv, kWidth<T>);
  T* const out = static_cast<T*>(base);
  T* const dout = out + padded;
  const int64_t begin = int64_t{q_tile} * kQTile, end = smaller(begin + kQTile, p.dims.total_q);
  for (int64_t token = begin; token < end; ++token) {
    for (int64_t head = 0; head < p.dims.heads_q; ++head) {
      pack_row(row_of<S>(p.out, token, head), p.out.dim, dv, padded, out);
      pack_row(row_of<S>(p.dout, token, head), p.dout.dim, dv, padded, dout);
      Vec<T> products{};
      for (int64_t i = 0; i < padded; i += kWidth<T>) products += load(out + i) * load(dout + i);
      T sum = 0;
      for (int i = 0; i < kWidth<T>; ++i) sum += products[i];
      static_cast<T*>(p.delta)[head * p.dims.total_q + token] = sum;
    }
  }
  const int64_t dq_row = p.dims.heads_q * p.dims.head_dim;
  if (p.plan.run_offsets[q_tile] == p.plan.run_offsets[q_tile + 1])
    zero(static_cast<T*>(p.dq) + begin * dq_row, (end - begin) * dq_row);
}

// One panel against the attended keys of one tile; k, v, dk, dv start at cover.key_begin; the others at the panel.
template <class T>
inline void backward_panel(const PlanView& plan, int32_t mask_id, int32_t row, const PanelCover<T>& cover,
                           const Dims& dims, int64_t d, int64_t dv_padded, const T* k, const T* v, T* dk, T* dv,
                           const BackwardScratch<T>& s) {
  const int64_t keys = cover.key_end - cover.key_begin;
  const int32_t column = cover.row_begin / kWidth<T> * kWidth<T>;
  const int32_t column_end = static_cast<int32_t>(round_up(cover.row_end, kWidth<T>));
  score_products(cover, dims.head_dim, k, d, s.q_columns + row * d, s.scores);
  score_products(cover, dims.head_dim_v, v, dv_padded, s.do_columns + row * dv_padded, s.dp);
  if (cover.partial) mask_scores(plan, mask_id, row, cover, column, column_end, kMasked<T>, s.scores);
  softmax_gradient(s.scores, s.dp, keys, column, column_end, s.lse + row, s.delta + row);
  add_along_rows(cover, s.scores, s.do_rows + row * dv_padded, dv_padded, dv);
  add_along_rows(cover, s.dp, s.q_rows + row * d, d, dk);
  add_along_keys(cover, s.dp, k, d, s.dq + row * d);
}

// lse in base 2 and delta of kQTile rows; rows without keys and rows beyond `rows` get probabilities 0.
template <class T>
inline void load_row_statistics(const BackwardProblem& p, int64_t begin, int64_t rows, int64_t head, T* lse, T* delta) {
  for (int64_t r = 0; r < kQTile; ++r) {
    const T row = r < rows ? static_cast<const T*>(p.lse)[(begin + r) * p.dims.heads_q + head] : -T(__builtin_inf());
    lse[r] = row == -T(__builtin_inf()) ? -kMasked<T> : T(double{row} * kLog2E);
    delta[r] = r < rows ? static_cast<const T*>(p.delta)[head * p.dims.total_q + begin + r] : T(0);
  }
}

// Rows and panels of Q (panels carry the factor of the scores) and dO, row statistics; dq = 0.
template <class S>
inline void load_queries(const BackwardProblem& p, int64_t begin, int64_t rows, int64_t head, int64_t d,
                         int64_t dv_padded, const BackwardScratch<Compute<S>>& s) {
  using T = Compute<S>;
  const int64_t padded_rows = round_up(rows, kPanel<T>);
  pack_rows<S>(p.q, begin, rows, head, p.dims.head_dim, d, s.q_rows);
  pack_rows<S>(p.dout, begin, rows, head, p.dims.head_dim_v, dv_padded, s.do_rows);
  zero(s.q_rows + rows * d, (padded_rows - rows) * d);
  zero(s.do_rows + rows * dv_padded, (padded_rows - rows) * dv_padded);
  for (int64_t row = 0; row < rows; row += kPanel<T>) {
    transpose_panel(s.q_rows + row * d, d, T(p.softmax_scale * kLog2E), s.q_columns + row * d);
    transpose_panel(s.do_rows + row * dv_padded, dv_padded, T(1), s.do_columns + row * dv_padded);
  }
  load_row_statistics(p, begin, rows, head, s.lse, s.delta);
  zero(s.dq, round_up(rows, kGemmRows) * d);
}

// The queries that load_queries will read next, fetched into L2 one panel at a time.
struct NextQueries {
  int64_t q_tile = 0;
  int64_t head = 0;
  int64_t fetched_panels = 0;
};

template <class S>
inline void prefetch_panel(const BackwardProblem& p, NextQueries& next) {
  constexpr int64_t kRows = kPanel<Compute<S>>;
  if (next.fetched_panels == kQTile / kRows) return;
  const int64_t begin = next.q_tile * kQTile + next.fetched_panels++ * kRows;
  const int64_t end = smaller(begin + kRows, p.dims.total_q);
  for (int64_t token = begin; token < end; ++token) {
    prefetch_row(row_of<S>(p.q, token, next.head), p.dims.head_dim);
    prefetch_row(row_of<S>(p.dout, token, next.head), p.dims.head_dim_v);
  }
}

// Waits for the turn of `segment`, adds scale * tile to dQ, or writes it where none came before, and passes the turn
// on.
template <class T>
inline void add_dq(const BackwardProblem& p, int32_t q_tile, int64_t head, int32_t segment, int32_t predecessor,
                   int64_t rows, int64_t d, const T* tile) {
  int32_t* const turn = p.dq_turn + q_tile * p.dims.heads_q + head;
  while (__atomic_load_n(turn, __ATOMIC_ACQUIRE) != predecessor + 1) sched_yield();
  const T scale = T(p.softmax_scale);
  const int64_t dim = p.dims.head_dim;
  for (int64_t r = 0; r < rows; ++r) {
    T* const to = static_cast<T*>(p.dq) + ((int64_t{q_tile} * kQTile + r) * p.dims.heads_q + head) * dim;
    if (predecessor < 0) {
      for (int64_t c = 0; c < dim; ++c) to[c] = scale * tile[r * d + c];
    } else {
      for (int64_t c = 0; c < dim; ++c) to[c] += scale * tile[r * d + c];
    }
  }
  __atomic_store_n(turn, segment + 1, __ATOMIC_RELEASE);
}

// Runs of a q tile that meet k tiles [first, last): [begin, end) into plan.runs, and the last segment before them that
// meets the q tile, or -1.
struct SegmentRuns {
  int32_t begin = 0;
  int32_t end = 0;
  int32_t predecessor = -1;
};

inline SegmentRuns runs_of_segment(const BackwardProblem& p, int32_t q_tile, int32_t first, int32_t last) {
  const int32_t start = p.plan.run_offsets[q_tile], stop = p.plan.run_offsets[q_tile + 1];
  int32_t low = start, high = stop;  // the first run that ends behind `first`
  while (low < high) {
    const int32_t middle = low + (high - low) / 2;
    if (p.plan.runs[middle].tile + p.plan.runs[middle].count > first) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  SegmentRuns found{.begin = low, .end = low, .predecessor = -1};
  while (found.end < stop && p.plan.runs[found.end].tile < last) ++found.end;
  int32_t tile_before = -1;
  if (found.begin < found.end && p.plan.runs[found.begin].tile < first) {
    tile_before = first - 1;
  } else if (found.begin > start) {
    tile_before = p.plan.runs[found.begin - 1].tile + p.plan.runs[found.begin - 1].count - 1;
  }
  if (tile_before >= 0) found.predecessor = tile_before / p.tiles_per_segment;
  return found;
}

// dK (times the scale) and dV of keys [first_key, first_key + keys).
template <class S>
inline void write_key_gradients(const BackwardProblem& p, int64_t first_key, int64_t keys, int64_t kv_head,
                                const Compute<S>* dk, int64_t d, const Compute<S>* dv, int64_t dv_padded) {
  using T = Compute<S>;
  for (int64_t key = 0; key < keys; ++key) {
    S* const dk_row = static_cast<S*>(p.dk.data) + (first_key + key) * p.dk.token + kv_head * p.dk.head;
    S* const dv_row = static_cast<S*>(p.dv.data) + (first_key + key) * p.dv.token + kv_head * p.dv.head;
    unpack_row<S>(dk + key * d, p.dims.head_dim, T(p.softmax_scale), dk_row, p.dk.dim);
    unpack_row<S>(dv + key * dv_padded, p.dims.head_dim_v, T(1), dv_row, p.dv.dim);
  }
}

template <class S>
size_t backward_scratch(const BackwardProblem& p) {
  using T = Compute<S>;
  return BackwardScratch<T>(nullptr, int64_t{p.tiles_per_segment} * kKTile, round_up(p.dims.head_dim, kWidth<T>),
                            round_up(p.dims.head_dim_v, kWidth<T>))
      .parts.used();
}

template <class S>
void backward(const BackwardProblem& p, int32_t segment, int64_t kv_head, void* base) {
  using T = Compute<S>;
  const int64_t d = round_up(p.dims.head_dim, kWidth<T>), dv_padded = round_up(p.dims.head_dim_v, kWidth<T>);
  const int32_t first_tile = segment * p.tiles_per_segment;
  const int32_t last_tile = static_cast<int32_t>(smaller(first_tile + p.tiles_per_segment, p.num_k_tiles));
  const int64_t first_key = int64_t{first_tile} * kKTile;
  const int64_t keys = smaller(int64_t{last_tile} * kKTile, p.dims.total_k) - first_key;
  const BackwardScratch<T> s(base, int64_t{p.tiles_per_segment} * kKTile, d, dv_padded);

  const int64_t padded_keys = round_up(keys, kGemmRows);
  pack_rows<S>(p.k, first_key, keys, kv_head, p.dims.head_dim, d, s.k);
  pack_rows<S>(p.v, first_key, keys, kv_head, p.dims.head_dim_v, dv_padded, s.v);
  zero(s.k + keys * d, (padded_keys - keys) * d);
  zero(s.v + keys * dv_padded, (padded_keys - keys) * dv_padded);
  zero(s.dk, padded_keys * d);
  zero(s.dv, padded_keys * dv_padded);

  for (int32_t q_tile = p.segment_q_tiles[2 * segment]; q_tile < p.segment_q_tiles[2 * segment + 1]; ++q_tile) {
    const SegmentRuns found = runs_of_segment(p, q_tile, first_tile, last_tile);
    if (found.begin == found.end) continue;
    const int64_t begin = int64_t{q_tile} * kQTile;
    const int32_t rows = static_cast<int32_t>(smaller(kQTile, p.dims.total_q - begin));
    const int64_t first_head = kv_head * group_size(p.dims), last_head = first_head + group_size(p.dims) - 1;
    for (int64_t head = first_head; head <= last_head; ++head) {
      load_queries<S>(p, begin, rows, head, d, dv_padded, s);
      NextQueries next = {.q_tile = head < last_head ? q_tile : q_tile + 1,
                          .head = head < last_head ? head + 1 : first_head};
      for (int32_t r = found.begin; r < found.end; ++r) {
        const TileRun run = p.plan.runs[r];
        PanelCover<T> covers[kPanels<T>];
        cover_panels(p.plan, run.mask_id, rows, covers);
        const int64_t run_end = smaller(run.tile + run.count, last_tile);
        for (int64_t tile = larger(run.tile, first_tile); tile < run_end; ++tile) {
          for (int32_t row = 0; row < rows; row += kPanel<T>) {
            const PanelCover<T>& cover = covers[row / kPanel<T>];
            if (cover.empty()) continue;
            const int64_t key = tile * kKTile - first_key + cover.key_begin;
            prefetch_panel<S>(p, next);
            backward_panel(p.plan, run.mask_id, row, cover, p.dims, d, dv_padded, s.k + key * d, s.v + key * dv_padded,
                           s.dk + key * d, s.dv + key * dv_padded, s);
          }
        }
      }
      add_dq(p, q_tile, head, segment, found.predecessor, rows, d, s.dq);
    }
  }

  write_key_gradients<S>(p, first_key, keys, kv_head, s.dk, d, s.dv, dv_padded);
}

}  // namespace ATTNMUX_ISA
}  // namespace attnmux::tiled_cpu
