// Tiles of bf16 as bits: plain rows, and pairs of rows interleaved, the two layouts that products of bf16 take.
#pragma once

#include "pack.h"

namespace attnmux::tiled_cpu {
namespace ATTNMUX_ISA {

// Keys, queries and head dims of the bf16 kernels are padded to multiples of this.
constexpr int64_t kBf16Unit = 32;

// Rows `a` and `b` of 32 values -> 32 pairs (a[i], b[i]), 64 values.
inline void interleave(__m512i a, __m512i b, BFloat16* to) {
  alignas(64) static constexpr uint16_t kLow[32] = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                                    8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  const __m512i low = _mm512_load_si512(kLow);
  const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
  _mm512_storeu_si512(to, _mm512_permutex2var_epi16(a, low, b));
  _mm512_storeu_si512(to + 32, _mm512_permutex2var_epi16(a, high, b));
}

// One row of bits to [padded], zeros behind. Vectors by mask: rows are too short for memcpy to pay.
inline void pack_bf16_row(const BFloat16* from, int64_t stride, int64_t dim, int64_t padded, BFloat16* to) {
  if (stride != 1) {
    for (int64_t i = 0; i < dim; ++i) to[i] = from[i * stride];
    for (int64_t i = dim; i < padded; ++i) to[i].bits = 0;
    return;
  }
  for (int64_t i = 0; i < padded; i += 32) {
    const __mmask32 inside = dim - i >= 32 ? 0xffffffffu : (1u << (dim - i)) - 1;
    _mm512_storeu_si512(to + i, _mm512_maskz_loadu_epi16(inside, from + i));
  }
}

// Tokens [begin, begin + count) of one head as bits, to [padded_count, padded], zeros around.
inline void pack_bf16_rows(const View& view, int64_t begin, int64_t count, int64_t padded_count, int64_t head,
                           int64_t dim, int64_t padded, BFloat16* to) {
  for (int64_t r = 0; r < count; ++r)
    pack_bf16_row(row_of<BFloat16>(view, begin + r, head), view.dim, dim, padded, to + r * padded);
  for (int64_t i = count * padded; i < padded_count * padded; i += 32)
    _mm512_storeu_si512(to + i, _mm512_setzero_si512());
}

// rows [count, padded] -> pairs of rows [count / 2, padded, 2]. REQUIRES: count even, padded a multiple of 32.
inline void interleave_rows(const BFloat16* rows, int64_t count, int64_t padded, BFloat16* pairs) {
  for (int64_t r = 0; r < count; r += 2) {
    for (int64_t c = 0; c < padded; c += 32)
      interleave(_mm512_loadu_si512(rows + r * padded + c), _mm512_loadu_si512(rows + (r + 1) * padded + c),
                 pairs + r * padded + 2 * c);
  }
}

// Pairs of 16-bit values move as one 32-bit element.
inline void transpose_pairs(const BFloat16* from, int64_t ld_from, int64_t rows, int64_t columns, BFloat16* to,
                            int64_t ld_to) {
  transpose(reinterpret_cast<const float*>(from), ld_from, rows, columns, reinterpret_cast<float*>(to), ld_to);
}

}  // namespace ATTNMUX_ISA
}  // namespace attnmux::tiled_cpu
