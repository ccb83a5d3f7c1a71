// Small matrix products on packed tiles: C [m, n] = or += A [m, k] B [k, n], all in L1 or L2.
//
// A register block is some rows x 2 vectors of C; per step of k it loads two vectors of B and broadcasts one element of
// A a row, so no operand needs packing beyond rows: A is read either along its rows (kRows: A[i * lda + l]) or
// transposed in place (kColumns: A[l * lda + i]). B and C have rows padded to whole vectors. A caller narrows a product
// to the attended part of a tile by moving pointers: k is exact, m is a multiple of kGemmRows. Two blocks of kTallRows,
// at most 3/2 kGemmRows, stand for three of kGemmRows where those leave registers idle: more sums are then under way
// than a multiply-add takes cycles, and an element of B is loaded for more of them.
#pragma once

#include "simd.h"

namespace attnmux::tiled_cpu {
namespace ATTNMUX_ISA {

enum class Walk { kRows, kColumns };

template <class T, Walk walk, int rows, int vectors>
inline void gemm_block(int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t ldc, bool add) {
  Vec<T> acc[rows][vectors];
#pragma GCC unroll 12
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < vectors; ++j) acc[i][j] = add ? load(c + i * ldc + j * kWidth<T>) : Vec<T>{};
  }
  for (int64_t l = 0; l < k; ++l) {
    Vec<T> right[vectors];
#pragma GCC unroll 2
    for (int j = 0; j < vectors; ++j) right[j] = load(b + j * kWidth<T>);
#pragma GCC unroll 12
    for (int i = 0; i < rows; ++i) {
      const Vec<T> left = splat(walk == Walk::kRows ? a[i * lda] : a[i]);
#pragma GCC unroll 2
      for (int j = 0; j < vectors; ++j) acc[i][j] += left * right[j];
    }
    a += walk == Walk::kRows ? 1 : lda;
    b += ldb;
  }
#pragma GCC unroll 12
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < vectors; ++j) store(c + i * ldc + j * kWidth<T>, acc[i][j]);
  }
}

// Not inlined: among the variables of a caller the compiler would no longer keep a whole block in registers.
template <class T, Walk walk, int vectors>
[[gnu::noinline]] void gemm_columns(int64_t m, int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb, T* c,
                                    int64_t ldc, bool add) {
  const int64_t a_row = walk == Walk::kRows ? lda : 1;
  int64_t i = 0;
  for (const int64_t tall_end = m / (2 * kTallRows) * (2 * kTallRows); i < tall_end; i += kTallRows)
    gemm_block<T, walk, kTallRows, vectors>(k, a + i * a_row, lda, b, ldb, c + i * ldc, ldc, add);
  for (; i < m; i += kGemmRows)
    gemm_block<T, walk, kGemmRows, vectors>(k, a + i * a_row, lda, b, ldb, c + i * ldc, ldc, add);
}

// REQUIRES: m is a multiple of kGemmRows, n of the vector width.
template <class T, Walk walk>
inline void gemm(int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t ldc,
                 bool add) {
  int64_t j = 0;
  for (; j + 2 * kWidth<T> <= n; j += 2 * kWidth<T>)
    gemm_columns<T, walk, 2>(m, k, a, lda, b + j, ldb, c + j, ldc, add);
  if (j < n) gemm_columns<T, walk, 1>(m, k, a, lda, b + j, ldb, c + j, ldc, add);
}

}  // namespace ATTNMUX_ISA
}  // namespace attnmux::tiled_cpu
