// The three products of a panel of queries with the keys of its cover, narrowed block by block to what is attended.
//
// A register block is kGemmRows rows or keys, so at a diagonal no more is computed than half such a block beside it.
// Pointers to keys start at cover.key_begin, pointers to rows and to columns of scores at the panel.
#pragma once

#include "gemm.h"
#include "panel_mask.h"

namespace attnmux::tiled_cpu {
namespace ATTNMUX_ISA {

// scores [keys, kPanel] = keys [keys, ld] x queries [dim, kPanel], in whole vectors of queries. Blocks that nothing
// attends are left as they are.
template <class T>
inline void score_products(const PanelCover<T>& cover, int64_t dim, const T* keys, int64_t ld, const T* queries,
                           T* scores) {
  for (int32_t key = cover.key_begin; key < cover.key_end; key += kGemmRows) {
    const Range rows = cover.rows_of(key);
    const int64_t column = rows.begin / kWidth<T> * kWidth<T>, at = key - cover.key_begin;
    gemm<T, Walk::kRows>(kGemmRows, round_up(rows.end, kWidth<T>) - column, dim, keys + at * ld, ld, queries + column,
                         kPanel<T>, scores + at * kPanel<T> + column, kPanel<T>, /*add=*/false);
  }
}

// sums [rows, n] += weights^T [rows, keys] x values [keys, n], for weights [keys, kPanel].
template <class T>
inline void add_along_keys(const PanelCover<T>& cover, const T* weights, const T* values, int64_t n, T* sums) {
  constexpr int64_t kColumns = 2 * kWidth<T>;  // of values, kept in L1 from block to block
  for (int64_t j = 0; j < n; j += kColumns) {
    for (int32_t row = cover.row_begin; row < cover.row_end; row += kGemmRows) {
      const Range& keys = cover.keys[row / kGemmRows];
      const int64_t at = keys.begin - cover.key_begin;
      gemm<T, Walk::kColumns>(kGemmRows, smaller(kColumns, n - j), keys.end - keys.begin,
                              weights + at * kPanel<T> + row, kPanel<T>, values + at * n + j, n, sums + row * n + j, n,
                              /*add=*/true);
    }
  }
}

// sums [keys, n] += weights [keys, kPanel] x values [rows, n].
template <class T>
inline void add_along_rows(const PanelCover<T>& cover, const T* weights, const T* values, int64_t n, T* sums) {
  for (int32_t key = cover.key_begin; key < cover.key_end; key += kGemmRows) {
    const Range rows = cover.rows_of(key);
    const int64_t at = key - cover.key_begin;
    gemm<T, Walk::kRows>(kGemmRows, n, rows.end - rows.begin, weights + at * kPanel<T> + rows.begin, kPanel<T>,
                         values + rows.begin * n, n, sums + at * n, n, /*add=*/true);
  }
}

}  // namespace ATTNMUX_ISA
}  // namespace attnmux::tiled_cpu
