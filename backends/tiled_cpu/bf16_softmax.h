// softmax.h for the bf16 kernels: scores [keys, 32] in fp32, without their factor yet, become bf16 operands of the next
// products. `factor` is softmax_scale * log2(e); it is applied in fp32, for q in bf16 would lose bits to it.
#pragma once

#include "bf16_gemm.h"
#include "softmax.h"

namespace attnmux::tiled_cpu {
namespace ATTNMUX_ISA {

static_assert(kPanel<float> == kBf16Unit);

// softmax_scale in base 2. Not 0: a masked score is infinite, and times 0 it would be NaN.
inline float score_factor(double softmax_scale) {
  const float factor = static_cast<float>(softmax_scale * kLog2E);
  return factor == 0 ? 1e-30f : factor;
}

// What `factor` turns into minus infinity.
inline float masked_score(float factor) { return factor > 0 ? -__builtin_inff() : __builtin_inff(); }

// Two vectors of fp32 -> one of bf16, in order.
inline __m512i round_to_bfloat16(Vec<float> first, Vec<float> second) {
  return (__m512i)_mm512_cvtne2ps_pbh(second, first);
}

// Two rows of 32 queries, {first, first, second, second}, to bf16 pairs (first[i], second[i]). Rounded by adding half a
// unit: ties go up rather than to even, in exchange for three plain integer instructions.
inline void store_pairs(const Vec<float>* rows, BFloat16* to) {
  const __m512i half = _mm512_set1_epi32(0x8000);
  for (int i = 0; i < 2; ++i) {
    const __m512i first = _mm512_add_epi32((__m512i)rows[i], half);
    const __m512i second = _mm512_add_epi32((__m512i)rows[i + 2], half);
    _mm512_storeu_si512(to + 32 * i, _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(first, 16), second));
  }
}

// exp(score - maximum) as pairs of keys [keys / 2, 32, 2]; updates the state. True where results so far must be
// multiplied by state.correction.
inline bool softmax_step_bf16(const float* scores, int64_t keys, float factor, RowState<float>& state,
                              BFloat16* pairs) {
  using V = Vec<float>;
  const V before[2] = {load(state.maximum), load(state.maximum + 16)};
  V best[4] = {before[0], before[1], before[0], before[1]};
  for (int64_t key = 0; key < keys; key += 2) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) best[i] = maximum(load(scores + key * 32 + i * 16) * factor, best[i]);
  }
  V base[2], sum[4] = {};
  bool moved = false;
  for (int i = 0; i < 2; ++i) {
    const V after = maximum(best[i], best[i + 2]);
    // As in softmax_step: a query that has seen no key keeps kMasked.
    base[i] = after > kMasked<float> / 2 ? after : V{};
    store(state.maximum + 16 * i, after);
    store(state.correction + 16 * i, exp2(before[i] - base[i]));
    moved |= _mm512_cmp_ps_mask(before[i], after, _CMP_NEQ_UQ) != 0;
  }
  for (int64_t key = 0; key < keys; key += 2) {
    V p[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      p[i] = exp2(load(scores + key * 32 + i * 16) * factor - base[i & 1]);
      sum[i] += p[i];
    }
    store_pairs(p, pairs + key * 32);
  }
  for (int i = 0; i < 2; ++i)
    store(state.sum + 16 * i, load(state.sum + 16 * i) * load(state.correction + 16 * i) + sum[i] + sum[i + 2]);
  return moved;
}

// p = exp(score - lse) and ds = p * (dp - delta) as rows [keys, ld] and, of ds, as pairs of keys [keys / 2, 32, 2].
inline void softmax_gradient_bf16(const float* scores, const float* dp, int64_t keys, float factor, const float* lse,
                                  const float* delta, int64_t ld, BFloat16* p_rows, BFloat16* ds_rows,
                                  BFloat16* ds_pairs) {
  using V = Vec<float>;
  const V row_lse[2] = {load(lse), load(lse + 16)}, row_delta[2] = {load(delta), load(delta + 16)};
  for (int64_t key = 0; key < keys; key += 2) {
    V p[4], ds[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const int64_t at = key * 32 + i * 16;
      p[i] = exp2(load(scores + at) * factor - row_lse[i & 1]);
      ds[i] = p[i] * (load(dp + at) - row_delta[i & 1]);
    }
    _mm512_storeu_si512(p_rows + key * ld, round_to_bfloat16(p[0], p[1]));
    _mm512_storeu_si512(p_rows + (key + 1) * ld, round_to_bfloat16(p[2], p[3]));
    _mm512_storeu_si512(ds_rows + key * ld, round_to_bfloat16(ds[0], ds[1]));
    _mm512_storeu_si512(ds_rows + (key + 1) * ld, round_to_bfloat16(ds[2], ds[3]));
    store_pairs(ds, ds_pairs + key * 32);
  }
}

}  // namespace ATTNMUX_ISA
}  // namespace attnmux::tiled_cpu
