// Vectors of the instruction set this translation unit is compiled for (GCC and clang vector extensions), and 2^x.
// Included by isa_*.cpp only, which define ATTNMUX_ISA; see kernel.h for why nothing here may leave that namespace.
#pragma once

#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "kernel.h"

namespace attnmux::tiled_cpu {
namespace ATTNMUX_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kGemmRows = 8;  // rows of a register block (gemm.h): 8 x 2 accumulators of 32 registers
constexpr int kTallRows = 8;  // 12 x 2 made backward a tenth slower
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kGemmRows = 4;  // 4 or 6 x 2 accumulators of 16 registers
constexpr int kTallRows = 6;
#else
constexpr int kVectorBytes = 16;
constexpr int kGemmRows = 4;
constexpr int kTallRows = 6;
#endif

template <class T>
struct SimdTypes;
template <>
struct SimdTypes<float> {
  typedef float Vec __attribute__((vector_size(kVectorBytes)));
  typedef int32_t Int __attribute__((vector_size(kVectorBytes)));
  typedef int32_t IntScalar;
};
template <>
struct SimdTypes<double> {
  typedef double Vec __attribute__((vector_size(kVectorBytes)));
  typedef int64_t Int __attribute__((vector_size(kVectorBytes)));
  typedef int64_t IntScalar;
};

template <class T>
using Vec = typename SimdTypes<T>::Vec;
template <class T>
constexpr int kWidth = kVectorBytes / sizeof(T);
// Queries of one panel: two vectors, the columns of every register block.
template <class T>
constexpr int kPanel = 2 * kWidth<T>;

// Score of a pair that is not attended: finite, so that differences of two of them are not NaN.
template <class T>
constexpr T kMasked = T(-1e30);

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

inline int64_t group_size(const Dims& dims) { return dims.heads_q / dims.heads_kv; }

// Part `part` of `parts` of a tile that is wanted soon, into L2.
inline void prefetch_part(const void* tile, size_t bytes, int64_t part, int64_t parts) {
  const char* const begin = static_cast<const char*>(tile) + bytes * part / parts;
  const char* const end = static_cast<const char*>(tile) + bytes * (part + 1) / parts;
  for (const char* at = begin; at < end; at += 64) __builtin_prefetch(at, 0, 2);
}

template <class T>
inline Vec<T> load(const T* from) {
  Vec<T> v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

template <class T>
inline void store(T* to, Vec<T> v) {
  __builtin_memcpy(to, &v, sizeof v);
}

template <class T>
inline Vec<T> splat(T x) {
  return x - Vec<T>{};
}

// b where either is NaN.
inline Vec<float> maximum(Vec<float> a, Vec<float> b) {
#if defined(__AVX512F__)
  return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}

inline Vec<double> maximum(Vec<double> a, Vec<double> b) {
#if defined(__AVX512F__)
  return _mm512_max_pd(a, b);
#elif defined(__AVX2__)
  return _mm256_max_pd(a, b);
#else
  return a > b ? a : b;
#endif
}

// 2^x, relative error below 2e-7; 0 below 2^-126 and for -infinity, NaN for NaN. REQUIRES: x <= 127.
// x = n + f with integer n; 2^f by the polynomial of degree 5 of least relative error (Remez: 7.5e-8).
inline Vec<float> exp2(Vec<float> x) {
#if defined(__AVX512F__)
  const Vec<float> f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);  // x - floor(x), in [0, 1)
  Vec<float> p = splat(1.87757676566e-3f);
  p = p * f + 8.9893398766e-3f;
  p = p * f + 5.58263182317e-2f;
  p = p * f + 2.40153616983e-1f;
  p = p * f + 6.93153073207e-1f;
  p = p * f + 9.99999925064e-1f;
  return _mm512_scalef_ps(p, x);  // times 2^floor(x)
#else
  typedef uint32_t Bits __attribute__((vector_size(kVectorBytes)));  // unsigned: lanes dropped below may overflow
  const Vec<float> magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
  const Vec<float> clamped = maximum(splat(-1000.0f), x);
  const Vec<float> shifted = clamped + magic;
  const Vec<float> f = clamped - (shifted - magic);  // in [-1/2, 1/2]
  Vec<float> p = splat(1.3276472632e-3f);
  p = p * f + 9.67554134312e-3f;
  p = p * f + 5.55071327186e-2f;
  p = p * f + 2.40221197237e-1f;
  p = p * f + 6.93146967065e-1f;
  p = p * f + 1.00000007165f;
  const Bits exponent = (Bits)shifted << 23;  // the bits of magic above fall out
  const Vec<float> scaled = (Vec<float>)((Bits)p + exponent);
  // NaN is not below the limit; its bits plus an exponent would be any number, so it goes through p.
  return clamped < -126.0f ? Vec<float>{} : (clamped == clamped ? scaled : p);
#endif
}

inline Vec<double> exp2(Vec<double> x) {
  for (int i = 0; i < kWidth<double>; ++i) x[i] = __builtin_exp2(x[i]);
  return x;
}

}  // namespace ATTNMUX_ISA
}  // namespace attnmux::tiled_cpu
