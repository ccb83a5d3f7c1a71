// Matrix products of bf16 tiles with fp32 sums on AMX: C [m, n] = or += A [m, k] B [k, n].
//
// A has plain rows; B has pairs of rows interleaved, as the instruction wants it: [k / 2, n, 2]. A block of C is
// 32 x 32, four tile registers; two hold 16 x 32 of A and two 32 x 16 of B. m, n and k are multiples of 32.
// Source: Intel 64 and IA-32 Architectures Software Developer's Manual, TDPBF16PS.
#pragma once

#include "pack.h"
#include "panel_mask.h"

namespace attnmux::tiled_cpu {
namespace ATTNMUX_ISA {

constexpr int64_t kAmxUnit = 32;

// The tile registers' shapes as the processor reads them.
struct alignas(64) AmxShape {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
// In memory as a whole: GCC 12 takes _tile_loadconfig to read 8 bytes only and drops stores to the others.
constexpr AmxShape kAmxShape;

// Holds the tile registers while a kernel runs on this thread.
class AmxTiles {
 public:
  AmxTiles() { _tile_loadconfig(&kAmxShape); }
  ~AmxTiles() { _tile_release(); }
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;
};

// lda in elements of A; ldb in elements of a pair of rows of B, at least 2 n.
inline void amx_gemm(int64_t m, int64_t n, int64_t k, const BFloat16* a, int64_t lda, const BFloat16* b, int64_t ldb,
                     float* c, int64_t ldc, bool add) {
  const int64_t a_bytes = lda * sizeof(BFloat16), b_bytes = ldb * sizeof(BFloat16), c_bytes = ldc * sizeof(float);
  for (int64_t j = 0; j < n; j += kAmxUnit) {
    for (int64_t i = 0; i < m; i += kAmxUnit) {
      float* const block = c + i * ldc + j;
      if (add) {
        _tile_loadd(0, block, c_bytes);
        _tile_loadd(1, block + 16, c_bytes);
        _tile_loadd(2, block + 16 * ldc, c_bytes);
        _tile_loadd(3, block + 16 * ldc + 16, c_bytes);
      } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
      }
      for (int64_t l = 0; l < k; l += kAmxUnit) {
        const BFloat16* const left = a + i * lda + l;
        const BFloat16* const right = b + l / 2 * ldb + 2 * j;
        _tile_loadd(4, left, a_bytes);
        _tile_loadd(6, right, b_bytes);
        _tile_loadd(7, right + 32, b_bytes);
        _tile_loadd(5, left + 16 * lda, a_bytes);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
      _tile_stored(0, block, c_bytes);
      _tile_stored(1, block + 16, c_bytes);
      _tile_stored(2, block + 16 * ldc, c_bytes);
      _tile_stored(3, block + 16 * ldc + 16, c_bytes);
    }
  }
}

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

// The box of a panel widened to whole units of keys; what it gains is masked.
inline Cover widen(Cover cover) {
  const int32_t begin = cover.key_begin / 32 * 32, end = (cover.key_end + 31) / 32 * 32;
  cover.partial |= begin != cover.key_begin || end != cover.key_end;
  cover.key_begin = begin;
  cover.key_end = end;
  return cover;
}

// Pairs of 16-bit values move as one 32-bit element.
inline void transpose_pairs(const BFloat16* from, int64_t ld_from, int64_t rows, int64_t columns, BFloat16* to,
                            int64_t ld_to) {
  transpose(reinterpret_cast<const float*>(from), ld_from, rows, columns, reinterpret_cast<float*>(to), ld_to);
}

}  // namespace ATTNMUX_ISA
}  // namespace attnmux::tiled_cpu
