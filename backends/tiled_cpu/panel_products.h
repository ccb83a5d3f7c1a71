// The three products of a panel of queries with the keys of its cover, narrowed block by block to what is attended.
//
// A block is kGemmRows rows or keys, so that at a diagonal no more is computed than half such a block beside it, or
// half a vector of queries. Neighbouring blocks with the same part of the other side become one product. Pointers to
// keys start at cover.key_begin, pointers to rows and to columns of scores at the panel.
#pragma once

#include "gemm.h"
#include "panel_mask.h"

namespace attnmux::tiled_cpu {
namespace ATTNMUX_ISA {

// Calls work(begin, end, part_of(begin)) for the longest stretches of blocks in [begin, end) that have the same part.
template <class PartOf, class Work>
inline void for_equal_blocks(int32_t begin, int32_t end, const PartOf& part_of, const Work& work) {
  while (begin < end) {
    const Range part = part_of(begin);
    int32_t stop = begin + kGemmRows;
    while (stop < end && part_of(stop) == part) stop += kGemmRows;
    work(begin, stop, part);
    begin = stop;
  }
}

// scores [keys, kPanel] = keys [keys, ld] x queries [dim, kPanel], in whole vectors of queries. Blocks that nothing
// attends are left as they are.
template <class T>
inline void score_products(const PanelCover<T>& cover, int64_t dim, const T* keys, int64_t ld, const T* queries,
                           T* scores) {
  const auto columns_of = [&](int32_t key) {
    const Range rows = cover.rows_of(key);
    return Range{rows.begin / kWidth<T> * kWidth<T>, (rows.end + kWidth<T> - 1) / kWidth<T> * kWidth<T>};
  };
  for_equal_blocks(cover.key_begin, cover.key_end, columns_of, [&](int32_t begin, int32_t end, Range columns) {
    const int64_t at = begin - cover.key_begin;
    gemm<T, Walk::kRows>(end - begin, columns.end - columns.begin, dim, keys + at * ld, ld, queries + columns.begin,
                         kPanel<T>, scores + at * kPanel<T> + columns.begin, kPanel<T>, /*add=*/false);
  });
}

// sums [rows, n] += weights^T [rows, keys] x values [keys, n], for weights [keys, kPanel].
template <class T>
inline void add_along_keys(const PanelCover<T>& cover, const T* weights, const T* values, int64_t n, T* sums) {
  const auto keys_of = [&](int32_t row) { return cover.keys[row / kGemmRows]; };
  for_equal_blocks(cover.row_begin, cover.row_end, keys_of, [&](int32_t begin, int32_t end, Range keys) {
    const int64_t at = keys.begin - cover.key_begin;
    gemm<T, Walk::kColumns>(end - begin, n, keys.end - keys.begin, weights + at * kPanel<T> + begin, kPanel<T>,
                            values + at * n, n, sums + begin * n, n, /*add=*/true);
  });
}

// sums [keys, n] += weights [keys, kPanel] x values [rows, n].
template <class T>
inline void add_along_rows(const PanelCover<T>& cover, const T* weights, const T* values, int64_t n, T* sums) {
  const auto rows_of = [&](int32_t key) { return cover.rows_of(key); };
  for_equal_blocks(cover.key_begin, cover.key_end, rows_of, [&](int32_t begin, int32_t end, Range rows) {
    const int64_t at = begin - cover.key_begin;
    gemm<T, Walk::kRows>(end - begin, n, rows.end - rows.begin, weights + at * kPanel<T> + rows.begin, kPanel<T>,
                         values + rows.begin * n, n, sums + at * n, n, /*add=*/true);
  });
}

}  // namespace ATTNMUX_ISA
}  // namespace attnmux::tiled_cpu
