// What the model layer's fused CPU kernels share: one build for several instruction sets, and a vectorisable exp.
//
//   ATTNMUX_MULTIVERSION static void scale(float* x, int64_t n) {   // compiled for AVX-512, AVX2 and the baseline;
//     #pragma omp simd                                             // the loader picks one
//     for (int64_t i = 0; i < n; ++i) x[i] = fast_exp(x[i]);
//   }
#pragma once

#include <cstdint>

// Sanitizers run before the loader has resolved such functions, so their builds take the baseline alone.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define ATTNMUX_MULTIVERSION \
  __attribute__((target_clones("arch=skylake-avx512", "arch=haswell", "default"), optimize("no-trapping-math")))
#else
#define ATTNMUX_MULTIVERSION
#endif

namespace attnmux {

// exp(x) to about one unit in the last place; arguments are clamped to [-87.3, 87.3], so that
// neither the result nor its inverse is denormal; NaN stays NaN.
// Cephes' expf: x = n ln 2 + r, a polynomial in r, and n into the exponent bits.
[[gnu::always_inline]] inline float fast_exp(float x) {
  x = x < -87.3f ? -87.3f : x;
  x = x > 87.3f ? 87.3f : x;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves round(z) in the low bits
  const float shifted = x * 1.44269504088896341f + kRound;
  const float n = shifted - kRound;
  float r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  // The builtin, not std::bit_cast: a function of another target would not be inlined into the clones.
  const uint32_t exponent = (__builtin_bit_cast(uint32_t, shifted) + 127u) << 23;
  return p * __builtin_bit_cast(float, exponent);
}

[[gnu::always_inline]] inline float fast_sigmoid(float x) { return 1.0f / (1.0f + fast_exp(-x)); }

}  // namespace attnmux
