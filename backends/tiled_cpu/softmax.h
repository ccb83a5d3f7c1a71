// Softmax along the keys of one panel of scores [keys, kPanel]: a query is a lane, so maximum and sum run down the
// rows and nothing is ever reduced across a vector. Scores carry the factor softmax_scale * log2(e) already, so that
// every exponential is 2^x.
//
// Formulas: Dao, FlashAttention-2 (arXiv 2307.08691), algorithm 1 (forward) and 2 (backward).
#pragma once

#include "simd.h"

namespace attnmux::tiled_cpu {
namespace ATTNMUX_ISA {

constexpr double kLog2E = 1.4426950408889634074;
constexpr double kLn2 = 0.69314718055994530942;

// Running maximum and sum of each query of a panel over the tiles seen so far.
template <class T>
struct RowState {
  T maximum[kPanel<T>];
  T sum[kPanel<T>];
  T correction[kPanel<T>];  // what the last step multiplies earlier results with
};

template <class T>
inline void reset(RowState<T>& state) {
  for (int i = 0; i < kPanel<T>; ++i) {
    state.maximum[i] = kMasked<T>;
    state.sum[i] = 0;
  }
}

// Largest of `start` and one vector of queries' scores. Four chains hide the latency of the maximum.
template <class T>
inline Vec<T> column_maximum(const T* scores, int64_t keys, Vec<T> start) {
  Vec<T> best[4] = {start, start, start, start};
  int64_t key = 0;
  for (; key + 4 <= keys; key += 4) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) best[i] = maximum(load(scores + (key + i) * kPanel<T>), best[i]);
  }
  for (; key < keys; ++key) best[0] = maximum(load(scores + key * kPanel<T>), best[0]);
  return maximum(maximum(best[0], best[1]), maximum(best[2], best[3]));
}

// Replaces scores by exp(score - maximum) and updates the state of queries [column, column_end). True where results so
// far must be multiplied by state.correction.
template <class T>
inline bool softmax_step(T* scores, int64_t keys, int32_t column, int32_t column_end, RowState<T>& state) {
  bool moved = false;
  for (; column < column_end; column += kWidth<T>) {
    T* s = scores + column;
    const Vec<T> before = load(state.maximum + column);
    const Vec<T> after = column_maximum(s, keys, before);
    // A query that has seen no key keeps kMasked as its maximum; 0 then makes its exponentials 0, not 1.
    const Vec<T> base = after > kMasked<T> / 2 ? after : Vec<T>{};
    const Vec<T> correction = exp2(before - base);
    Vec<T> sum{};
    for (int64_t key = 0; key < keys; ++key) {
      const Vec<T> p = exp2(load(s + key * kPanel<T>) - base);
      store(s + key * kPanel<T>, p);
      sum += p;
    }
    store(state.maximum + column, after);
    store(state.sum + column, load(state.sum + column) * correction + sum);
    store(state.correction + column, correction);
    for (int i = 0; i < kWidth<T>; ++i) moved |= before[i] != after[i];
  }
  return moved;
}

// Backward: scores -> p = exp(score - lse), dp -> ds = p * (dp - delta), for queries [column, column_end). A query
// without keys has lse = -kMasked, which makes its p 0.
template <class T>
inline void softmax_gradient(T* scores, T* dp, int64_t keys, int32_t column, int32_t column_end, const T* lse,
                             const T* delta) {
  for (; column < column_end; column += kWidth<T>) {
    const Vec<T> row_lse = load(lse + column);
    const Vec<T> row_delta = load(delta + column);
    for (int64_t at = column; at < column + keys * kPanel<T>; at += kPanel<T>) {
      const Vec<T> p = exp2(load(scores + at) - row_lse);
      store(scores + at, p);
      store(dp + at, p * (load(dp + at) - row_delta));
    }
  }
}

}  // namespace ATTNMUX_ISA
}  // namespace attnmux::tiled_cpu
