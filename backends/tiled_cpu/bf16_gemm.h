// Matrix products of bf16 tiles with fp32 sums: C [m, n] = or += A [m, k] B [k, n], on AMX or with AVX512_BF16.
//
// A has plain rows; B has pairs of rows interleaved, as both instructions want it: [k / 2, n, 2]. m, n and k are
// multiples of 32. lda is in elements of A; ldb in elements of a pair of rows of B, at least 2 n.
// Source: Intel 64 and IA-32 Architectures Software Developer's Manual, TDPBF16PS and VDPBF16PS.
#pragma once

#include "bf16_pack.h"

namespace attnmux::tiled_cpu {
namespace ATTNMUX_ISA {

#if defined(__AMX_BF16__)

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

// Holds the tile registers while a kernel runs on this thread. A block of C is 32 x 32, four of them; two hold 16 x 32
// of A and two 32 x 16 of B.
class Bf16Registers {
 public:
  Bf16Registers() { _tile_loadconfig(&kAmxShape); }
  ~Bf16Registers() { _tile_release(); }
  Bf16Registers(const Bf16Registers&) = delete;
  Bf16Registers& operator=(const Bf16Registers&) = delete;
};

inline void bf16_gemm(int64_t m, int64_t n, int64_t k, const BFloat16* a, int64_t lda, const BFloat16* b, int64_t ldb,
                      float* c, int64_t ldc, bool add) {
  const int64_t a_bytes = lda * sizeof(BFloat16), b_bytes = ldb * sizeof(BFloat16), c_bytes = ldc * sizeof(float);
  for (int64_t j = 0; j < n; j += kBf16Unit) {
    for (int64_t i = 0; i < m; i += kBf16Unit) {
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
      for (int64_t l = 0; l < k; l += kBf16Unit) {
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

#else

// Nothing to hold: AVX512_BF16 works in the ordinary vector registers.
class Bf16Registers {
 public:
  Bf16Registers() {}
};

// A register block is kRows x 32 of C; a step of k loads one pair of rows of B and broadcasts one pair a row of A. Not
// inlined, for the reason that gemm_columns is not.
[[gnu::noinline]] inline void bf16_gemm(int64_t m, int64_t n, int64_t k, const BFloat16* a, int64_t lda,
                                        const BFloat16* b, int64_t ldb, float* c, int64_t ldc, bool add) {
  constexpr int kRows = 8;
  for (int64_t j = 0; j < n; j += kBf16Unit) {
    for (int64_t i = 0; i < m; i += kRows) {
      float* const block = c + i * ldc + j;
      Vec<float> acc[kRows][2];
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        acc[r][0] = add ? load(block + r * ldc) : Vec<float>{};
        acc[r][1] = add ? load(block + r * ldc + 16) : Vec<float>{};
      }
      const BFloat16* left = a + i * lda;
      const BFloat16* right = b + 2 * j;
      for (int64_t l = 0; l < k; l += 2, left += 2, right += ldb) {
        const __m512bh right_0 = (__m512bh)_mm512_loadu_si512(right);
        const __m512bh right_1 = (__m512bh)_mm512_loadu_si512(right + 32);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          int32_t pair;
          __builtin_memcpy(&pair, left + r * lda, sizeof pair);
          const __m512bh pairs = (__m512bh)_mm512_set1_epi32(pair);
          acc[r][0] = _mm512_dpbf16_ps(acc[r][0], pairs, right_0);
          acc[r][1] = _mm512_dpbf16_ps(acc[r][1], pairs, right_1);
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        store(block + r * ldc, acc[r][0]);
        store(block + r * ldc + 16, acc[r][1]);
      }
    }
  }
}

#endif

}  // namespace ATTNMUX_ISA
}  // namespace attnmux::tiled_cpu
