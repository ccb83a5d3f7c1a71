// Forward attention over a tile plan, sm_90a.
//
// Tiles: 128 keys x 128 queries (head_dim 128) or 192 (64), in strips of 64 queries. Warpgroup 0 is the producer (one
// warp works), each other one owns a strip: 384 threads or 512. Persistent blocks take items (q tile, query head), the
// most expensive first.
//
// Shared memory (head_dim 128 / 64), tiles of 64 columns with 128-byte swizzle:
//   Q[2]   64 / 48 KB   the next item's Q arrives under this item's work; O is staged over its own Q on the way out
//   K[2]   64 / 32 KB
//   V[2]   64 / 32 KB
//   mask[2] 4 /  6 KB   bits of a partial tile in thread order, beside their K
//   header[2]           (q tile, head, masked tiles, unmasked tiles) of the item whose Q lies in the same slot
//
// Barriers: full/empty pairs for Q, K and V slots. `full` counts the producer's one arrival and the bytes; K and V
// `empty` count one arrival a consumer warp, Q `empty` one a consumer warpgroup, after its O has left.
// Named barriers: kTurn + g let the warpgroups issue their products in turn, so that one exponentiates while another
// multiplies; kGather + g gather a warpgroup before its O is stored.
//
// One step of a warpgroup: S = Q K_i^T and O += P_{i-1} V_{i-1} are issued together, then softmax runs on S while the
// second product is in flight. Scores are measured from a reference of their row that moves only when one outgrows it
// by 2^8: the quotient O / l does not depend on it, and the usual step needs neither row maxima across the quad nor a
// rescaled O.
//
// Registers, no spills: 240 for two warpgroups, which hold Q in registers, 160 for three, which read it from shared
// memory; 24 or 32 for the producer.
//
// History: TFLOP/s on one H200 in one process, bf16, 32768 tokens, 16:16 heads, head_dim 128 / 64.
//                                          full       causal     varlen     window     prefix
//                                                                causal     1024       tree
//   two warpgroups, Q in shared memory     622 / 437  610 / 440  523 / 329  543 / 344  594 / 431
//   Q in registers; references that        704 / 435  675 / 449  577 / 330  602 / 346  665 / 444
//   rarely move; items claimed late
//   no claims where blocks are many        708 / 436  679 / 450  581 / 331  602 / 348  667 / 444
//   one wait for all warps                 697 / 449  674 / 461  582 / 337  601 / 356  662 / 455
//   masks behind the scale; head_dim 64:   697 / 538  681 / 536  579 / 365  602 / 362  667 / 518
//   three warpgroups, polynomials
//   FlashAttention-3                       660 / 565  668 / 555  519 / 368  542 / 339
// At head_dim 64 (another run: 513, 507, 383, 371) without turns 445, 455, 355, 344; 526, 512 with one polynomial in 16
// and no more with one in 8 or 6, less with one in 4. At head_dim 128 polynomials cost 3%.
// Where the time goes (full mask): at head_dim 128 tensor cores are busy 89% of it, at a clock of 1.6 GHz that power
// limits; at 64 they and the unit for exponentials 57% each, issue slots 51%: latency that a fourth warpgroup's worth
// of independent work would hide.
#pragma once

#include "ffa_sm90/fwd_params.h"
#include "ffa_sm90/ring.cuh"
#include "ffa_sm90/wgmma.cuh"

namespace attnmux::ffa_sm90 {

template <int kHeadDim>
struct FwdLayout {
  static constexpr int kGroups = forward_strips(kHeadDim);  // warpgroups that compute
  static constexpr int kRows = kGroups * kStrip;
  static constexpr int kThreads = 128 * (1 + kGroups);
  static constexpr bool kQInRegisters = kGroups == 2;
  static constexpr bool kExpBound = kHeadDim == 64;  // exponentials take as long as products
  static constexpr int kColumnTiles = kHeadDim / 64;
  static constexpr uint32_t kQColumnTileBytes = kRows * kSwizzleBytes;  // 64 columns
  static constexpr uint32_t kQBytes = kQColumnTileBytes * kColumnTiles;
  static constexpr uint32_t kColumnTileBytes = kTile * kSwizzleBytes;
  static constexpr uint32_t kTileBytes = kColumnTileBytes * kColumnTiles;
  static constexpr uint32_t kMaskBytes = kGroups * kStripMaskWords * 4;
  static constexpr uint32_t kQ = 0;
  static constexpr uint32_t kK = kQ + 2 * kQBytes;
  static constexpr uint32_t kV = kK + 2 * kTileBytes;
  static constexpr uint32_t kMask = kV + 2 * kTileBytes;
  static constexpr uint32_t kHeader = kMask + 2 * kMaskBytes;
  static constexpr uint32_t kBarriers = kHeader + 2 * sizeof(int4);
  static constexpr uint32_t kQFull = kBarriers, kQEmpty = kQFull + 16;
  static constexpr uint32_t kKFull = kQEmpty + 16, kKEmpty = kKFull + 16;
  static constexpr uint32_t kVFull = kKEmpty + 16, kVEmpty = kVFull + 16;
  static constexpr uint32_t kBytes = kVEmpty + 16;
  static constexpr uint32_t kAllocated = kBytes + 1024;  // the base is rounded up to the swizzle's period
};

inline constexpr uint32_t kTurn = 1;
inline constexpr uint32_t kGather = 4;
inline constexpr int kExpBeforeWait = 16;       // exponentials of 64 that run before the second product is awaited
inline constexpr float kReferenceSlack = 8.0f;  // log2

template <int kHeadDim>
__device__ __forceinline__ void produce(const FwdParams& params, uint32_t smem, char* smem_generic) {
  using L = FwdLayout<kHeadDim>;
  const bool leader = threadIdx.x == 0;
  Ring q, k, v;
  const int items = params.num_q_tiles * params.heads_q, blocks = gridDim.x;
  const int section_items = params.num_q_tiles * params.section_heads;
  // The counter holds anything where every item has its own block.
  const auto claim = [&] { return items > blocks ? blocks + atomicAdd(params.counter, 1) : items; };
  int item = blockIdx.x;
  while (item < items) {
    const int section = item / section_items;
    const int in_section = item - section * section_items;
    const int rank = in_section / params.section_heads;
    const int head = section * params.section_heads + in_section - rank * params.section_heads;
    const QTileRecord record = params.records[rank];
    const int head_kv = head / params.group;

    mbarrier_wait(smem + L::kQEmpty + q.slot * 8, q.phase ^ 1);
    if (leader) {
      *reinterpret_cast<int4*>(smem_generic + L::kHeader + q.slot * sizeof(int4)) =
          make_int4(record.q_tile, head, record.num_masked, record.num_unmasked);
      const uint32_t full = smem + L::kQFull + q.slot * 8;
      if (record.num_masked + record.num_unmasked > 0) {
        mbarrier_arrive_expect_tx(full, L::kQBytes);
#pragma unroll
        for (int c = 0; c < L::kColumnTiles; ++c) {
          tma_load_3d(smem + L::kQ + q.slot * L::kQBytes + c * L::kQColumnTileBytes, &params.q_map, c * 64, head,
                      record.q_tile * L::kRows, full, kEvictFirst);
        }
      } else {
        mbarrier_arrive(full);
      }
    }
    q.advance();

    const auto load_k = [&](int tile, int mask) {
      mbarrier_wait(smem + L::kKEmpty + k.slot * 8, k.phase ^ 1);
      if (leader) {
        const uint32_t full = smem + L::kKFull + k.slot * 8;
        mbarrier_arrive_expect_tx(full, L::kTileBytes + (mask >= 0 ? L::kMaskBytes : 0));
#pragma unroll
        for (int c = 0; c < L::kColumnTiles; ++c) {
          tma_load_3d(smem + L::kK + k.slot * L::kTileBytes + c * L::kColumnTileBytes, &params.k_map, c * 64, head_kv,
                      tile * kTile, full, kEvictLast);
        }
        if (mask >= 0) {
          bulk_load(smem + L::kMask + k.slot * L::kMaskBytes,
                    params.masks + int64_t{mask} * (L::kMaskBytes / sizeof(uint32_t)), L::kMaskBytes, full);
        }
      }
      k.advance();
    };
    const auto load_v = [&](int tile) {
      mbarrier_wait(smem + L::kVEmpty + v.slot * 8, v.phase ^ 1);
      if (leader) {
        const uint32_t full = smem + L::kVFull + v.slot * 8;
        mbarrier_arrive_expect_tx(full, L::kTileBytes);
#pragma unroll
        for (int c = 0; c < L::kColumnTiles; ++c) {
          tma_load_3d(smem + L::kV + v.slot * L::kTileBytes + c * L::kColumnTileBytes, &params.v_map, c * 64, head_kv,
                      tile * kTile, full, kEvictLast);
        }
      }
      v.advance();
    };

    const int tiles = record.num_masked + record.num_unmasked;
    const int2* entry = params.entries + record.begin;
    int tile = 0, run_left = 0, next = 0;
    // Claimed late, so that no item waits behind this one while another block is free, yet before its number is needed.
    if (leader && tiles < 2) next = claim();
#pragma unroll 1
    for (int i = 0; i < tiles; ++i) {
      if (leader && i == tiles - 2) next = claim();
      const int previous = tile;
      int mask = -1;
      if (run_left > 0) {
        ++tile;
        --run_left;
      } else {
        const int2 next_entry = *entry++;
        tile = next_entry.x;
        if (i < record.num_masked) {
          mask = next_entry.y;
        } else {
          run_left = next_entry.y - 1;
        }
      }
      load_k(tile, mask);
      if (i > 0) load_v(previous);  // V follows one tile behind K, as the consumers want it
    }
    if (tiles > 0) load_v(tile);
    item = __shfl_sync(0xffffffff, next, 0);
  }
  // The end of the list.
  mbarrier_wait(smem + L::kQEmpty + q.slot * 8, q.phase ^ 1);
  if (leader) {
    *reinterpret_cast<int4*>(smem_generic + L::kHeader + q.slot * sizeof(int4)) = make_int4(-1, 0, 0, 0);
    mbarrier_arrive(smem + L::kQFull + q.slot * 8);
  }
}

// Softmax state of the two rows (l / 4 and l / 4 + 8 of the warp's 16) that a thread shares with its quad.
struct RowState {
  float reference[2];  // what log2 scores are measured from
  float sum[2];        // this thread's part of sum exp2(score - reference)
  bool fresh[2];       // no key yet: the first scores set the reference
  bool settled;        // no row of the warp is fresh
};

// Pairs that are not attended become -inf; word h, bit 2 j + e belongs to s[4 j + 2 h + e].
__device__ __forceinline__ void apply_mask(float (&s)[64], uint2 words) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const uint32_t word = h == 0 ? words.x : words.y;
#pragma unroll
    for (int bit = 0; bit < 32; ++bit) {
      const int i = 4 * (bit >> 1) + 2 * h + (bit & 1);
      if (!(word & (1u << bit))) s[i] = -INFINITY;
    }
  }
}

// Log2 scores less the rows' references; the mask comes behind the scale, which may be 0 or negative. Returns whether a
// reference of the warp must move.
template <bool kMasked>
__device__ __forceinline__ bool subtract_reference(float (&s)[64], const RowState& rows, float scale_log2,
                                                   uint2 words) {
#pragma unroll
  for (int i = 0; i < 64; ++i) s[i] = fmaf(s[i], scale_log2, -rows.reference[(i >> 1) & 1]);
  if constexpr (kMasked) apply_mask(s, words);
  float peak[4] = {s[0], s[1], s[2], s[3]};
#pragma unroll
  for (int i = 4; i < 64; ++i) peak[i % 4] = fmaxf(peak[i % 4], s[i]);
  const float top = fmaxf(fmaxf(peak[0], peak[1]), fmaxf(peak[2], peak[3]));
  return __any_sync(0xffffffff, top > kReferenceSlack) || !rows.settled;
}

// Moves the references to the scores' maxima: of rows that outgrew them upwards, of fresh rows either way. O is to be
// multiplied by alpha.
__device__ __forceinline__ void move_reference(float (&s)[64], RowState& rows, float (&alpha)[2]) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float peak = s[2 * h];
#pragma unroll
    for (int i = 0; i < 64; ++i) {
      if (((i >> 1) & 1) == h) peak = fmaxf(peak, s[i]);
    }
    peak = fmaxf(peak, __shfl_xor_sync(0xffffffff, peak, 1));
    peak = fmaxf(peak, __shfl_xor_sync(0xffffffff, peak, 2));
    const float delta = rows.fresh[h] ? (peak == -INFINITY ? 0.0f : peak) : fmaxf(peak, 0.0f);
    alpha[h] = rows.fresh[h] ? 1.0f : exp2_approx(-delta);
    rows.fresh[h] = rows.fresh[h] && peak == -INFINITY;
    rows.reference[h] += delta;
    rows.sum[h] *= alpha[h];
#pragma unroll
    for (int i = 0; i < 64; ++i) {
      if (((i >> 1) & 1) == h) s[i] -= delta;
    }
  }
  rows.settled = __all_sync(0xffffffff, !rows.fresh[0] && !rows.fresh[1]);
}

// 2^x on the units that multiply, for x <= 8 and not -inf; the result is exact to 3e-6. x = n + f, f in [-1/2, 1/2]:
// adding 1.5 * 2^23 rounds x to n, which then stands in the low bits; the polynomial is minimax in relative error.
__device__ __forceinline__ float exp2_polynomial(float x) {
  x = fmaxf(x, -126.0f);
  const float shifted = x + 12582912.0f;
  const float f = x - (shifted - 12582912.0f);
  float y = fmaf(f, 0.0095701f, 0.05591786f);
  y = fmaf(y, f, 0.24024745f);
  y = fmaf(y, f, 0.69312181f);
  y = fmaf(y, f, 0.99999926f);
  return __int_as_float(__float_as_int(y) + (__float_as_int(shifted) << 23));
}

// Scores [kBegin, kEnd) become probabilities, and count. kPolynomial takes one in 16 off the unit for exponentials.
template <int kBegin, int kEnd, bool kPolynomial = false>
__device__ __forceinline__ void exponentiate(float (&s)[64], float (&part)[4]) {
#pragma unroll
  for (int i = kBegin; i < kEnd; ++i) s[i] = kPolynomial && i % 16 == 15 ? exp2_polynomial(s[i]) : exp2_approx(s[i]);
#pragma unroll
  for (int i = kBegin; i < kEnd; ++i) part[i % 4] += s[i];
}

template <class T, int kHeadDim>
__device__ __forceinline__ void consume(const FwdParams& params, uint32_t smem, const char* smem_generic) {
  using L = FwdLayout<kHeadDim>;
  constexpr int kO = kHeadDim / 2;
  const int group = threadIdx.x / 128 - 1;  // which strip of the tile
  const int thread = threadIdx.x % 128;
  const int lane = threadIdx.x % 32;
  const float scale_log2 = params.scale_log2;
  Ring q, k, v;
  float o[kO];
  uint32_t q_fragments[L::kQInRegisters ? kHeadDim / 16 : 1][4];
  uint32_t p[8][4];
  RowState rows;

  // The first warpgroup has the first turn.
  if (group == 0) named_barrier_arrive(kTurn, 256);

  const auto issue_qk = [&](float(&s)[64]) {
    const uint64_t b = descriptor_k_major(smem + L::kK + k.slot * L::kTileBytes);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kHeadDim / 16; ++step) {
      const uint64_t b_step = advance(b, step / 4 * L::kColumnTileBytes + step % 4 * 32);
      if constexpr (L::kQInRegisters) {
        wgmma_rs<T, 0>(s, q_fragments[step], b_step, step > 0);
      } else {
        const uint64_t a = descriptor_k_major(smem + L::kQ + q.slot * L::kQBytes + group * kStrip * kSwizzleBytes);
        wgmma_ss<T, 0, 0>(s, advance(a, step / 4 * L::kQColumnTileBytes + step % 4 * 32), b_step, step > 0);
      }
    }
    wgmma_commit();
  };
  const auto issue_pv = [&] {
    const uint64_t b = descriptor_mn_major(smem + L::kV + v.slot * L::kTileBytes, L::kColumnTileBytes);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kTile / 16; ++step) wgmma_rs<T, 1>(o, p[step], advance(b, step * 2048), 1);
    wgmma_commit();
  };
  const auto load_mask = [&] {
    return *reinterpret_cast<const uint2*>(smem_generic + L::kMask + k.slot * L::kMaskBytes +
                                           group * kStripMaskWords * 4 + thread * 8);
  };
  const auto pack_p = [&](const float(&s)[64]) {
#pragma unroll
    for (int step = 0; step < 8; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) p[step][i] = pack<T>(s[8 * step + 2 * i], s[8 * step + 2 * i + 1]);
    }
  };

  // The slot from which the last item's O is on its way out goes back to the producer under this item's first product.
  uint32_t stored = 0;
  const auto release_stored = [&] {
    if (thread == 0 && stored != 0) {
      bulk_wait_read<0>();
      mbarrier_arrive(stored);
    }
  };

  while (true) {
    mbarrier_wait(smem + L::kQFull + q.slot * 8, q.phase);
    const int4 header = *reinterpret_cast<const int4*>(smem_generic + L::kHeader + q.slot * sizeof(int4));
    const int q_tile = header.x, head = header.y, num_masked = header.z, tiles = header.z + header.w;
    if (q_tile < 0) break;
    // Lane l addresses row l % 8 of the 8 x 8 matrix l / 8: rows of this warp, 16 columns.
    const int matrix = lane / 8, matrix_row = (matrix & 1) * 8 + lane % 8;
    const uint32_t q_smem = smem + L::kQ + q.slot * L::kQBytes + group * kStrip * kSwizzleBytes;
    const auto q_block = [&](int j) {
      const uint32_t chunk = (2 * (j % 4) + (matrix >> 1)) ^ (matrix_row % 8);
      return q_smem + j / 4 * L::kQColumnTileBytes + (thread / 32 * 16 + matrix_row) * kSwizzleBytes + chunk * 16;
    };
    if constexpr (L::kQInRegisters) {
#pragma unroll
      for (int j = 0; j < kHeadDim / 16; ++j) load_matrix_x4(q_block(j), q_fragments[j]);
    }
#pragma unroll
    for (int i = 0; i < kO; ++i) o[i] = 0.0f;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      rows.reference[h] = 0.0f;
      rows.sum[h] = 0.0f;
      rows.fresh[h] = true;
    }
    rows.settled = false;

    const auto first = [&](auto masked) {
      float s[64];
      float alpha[2];
      float part[4] = {};
      mbarrier_wait(smem + L::kKFull + k.slot * 8, k.phase);
      issue_qk(s);
      release_stored();
      wgmma_wait<0>();
      pin(s);
      const uint2 words = masked.value ? load_mask() : uint2{};
      warp_arrive(smem + L::kKEmpty + k.slot * 8);
      k.advance();
      subtract_reference<masked.value>(s, rows, scale_log2, words);
      move_reference(s, rows, alpha);
      exponentiate<0, 64>(s, part);
#pragma unroll
      for (int h = 0; h < 2; ++h) rows.sum[h] = part[2 * h] + part[2 * h + 1];
      pack_p(s);
    };
    const auto step = [&](auto masked) {
      constexpr bool kPolynomial = L::kExpBound && !masked.value;  // masked scores may be -inf
      float s[64];
      float alpha[2];
      float part[4] = {};
      mbarrier_wait(smem + L::kKFull + k.slot * 8, k.phase);
      named_barrier_sync(kTurn + group, 256);
      issue_qk(s);
      mbarrier_wait(smem + L::kVFull + v.slot * 8, v.phase);
      issue_pv();
      named_barrier_arrive(kTurn + (group + 1) % L::kGroups, 256);
      wgmma_wait<1>();
      pin(s);
      const uint2 words = masked.value ? load_mask() : uint2{};
      warp_arrive(smem + L::kKEmpty + k.slot * 8);
      k.advance();
      const bool moved = subtract_reference<masked.value>(s, rows, scale_log2, words);
      // The first exponentials stand in both branches, and a jump behind them: in one block the assembler would move
      // the wait before them, and they are to run under the product in flight. The wait itself stands outside, for all
      // warps of the group have to execute the same one.
      if (moved) {
        move_reference(s, rows, alpha);
        exponentiate<0, kExpBeforeWait, kPolynomial>(s, part);
      } else {
        exponentiate<0, kExpBeforeWait, kPolynomial>(s, part);
        pin<kExpBeforeWait>(s);
      }
      wgmma_wait<0>();
      pin(o);
      if (moved) {
#pragma unroll
        for (int i = 0; i < kO; ++i) o[i] *= alpha[(i >> 1) & 1];
      }
      warp_arrive(smem + L::kVEmpty + v.slot * 8);
      v.advance();
      exponentiate<kExpBeforeWait, 64, kPolynomial>(s, part);
#pragma unroll
      for (int h = 0; h < 2; ++h) rows.sum[h] += part[2 * h] + part[2 * h + 1];
      pack_p(s);
    };

    if (tiles > 0) {
      if (num_masked > 0) {
        first(std::true_type{});
      } else {
        first(std::false_type{});
      }
      int tile = 1;
#pragma unroll 1
      for (; tile < num_masked; ++tile) step(std::true_type{});
#pragma unroll 1
      for (; tile < tiles; ++tile) step(std::false_type{});
      mbarrier_wait(smem + L::kVFull + v.slot * 8, v.phase);
      issue_pv();
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        rows.sum[h] += __shfl_xor_sync(0xffffffff, rows.sum[h], 1);
        rows.sum[h] += __shfl_xor_sync(0xffffffff, rows.sum[h], 2);
      }
      wgmma_wait<0>();
      pin(o);
      warp_arrive(smem + L::kVEmpty + v.slot * 8);
      v.advance();
    } else {
      release_stored();
    }

    float inverse[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const bool any = rows.sum[h] > 0.0f;
      inverse[h] = any ? 1.0f / rows.sum[h] : 0.0f;
      const int row = q_tile * L::kRows + group * kStrip + thread / 32 * 16 + lane / 4 + 8 * h;
      if (lane % 4 == 0 && row < params.total_q) {
        params.lse[int64_t{row} * params.heads_q + head] =
            any ? rows.reference[h] * 0.69314718055994531f + __logf(rows.sum[h]) : -INFINITY;
      }
    }

    // O takes the place of this warpgroup's rows of Q, once no product of the group reads them.
    if constexpr (!L::kQInRegisters) named_barrier_sync(kGather + group, 128);
#pragma unroll
    for (int j = 0; j < kHeadDim / 16; ++j) {
      const float* x = &o[8 * j];
      store_matrix_x4(q_block(j), pack<T>(x[0] * inverse[0], x[1] * inverse[0]),
                      pack<T>(x[2] * inverse[1], x[3] * inverse[1]), pack<T>(x[4] * inverse[0], x[5] * inverse[0]),
                      pack<T>(x[6] * inverse[1], x[7] * inverse[1]));
    }
    fence_async_shared();
    named_barrier_sync(kGather + group, 128);
    if (thread == 0) {
#pragma unroll
      for (int c = 0; c < L::kColumnTiles; ++c) {
        tma_store_3d(&params.o_map, c * 64, head, q_tile * L::kRows + group * kStrip,
                     q_smem + c * L::kQColumnTileBytes);
      }
      bulk_commit();
    }
    stored = smem + L::kQEmpty + q.slot * 8;
    q.advance();
  }
  if (thread == 0) bulk_wait_read<0>();  // shared memory must outlive the stores
}

template <class T, int kHeadDim>
__global__ void __launch_bounds__(FwdLayout<kHeadDim>::kThreads, 1)
    ffa_fwd_kernel(const __grid_constant__ FwdParams params) {
  using L = FwdLayout<kHeadDim>;
  extern __shared__ char smem_raw[];
  const uint32_t raw = smem_address(smem_raw);
  const uint32_t smem = (raw + 1023) & ~1023u;
  char* smem_generic = smem_raw + (smem - raw);
  if (threadIdx.x == 0) {
    if (blockIdx.x == 0) store_to_host(params.begun, params.caller);
#pragma unroll
    for (int slot = 0; slot < 2; ++slot) {
      mbarrier_init(smem + L::kQFull + slot * 8, 1);
      mbarrier_init(smem + L::kQEmpty + slot * 8, L::kGroups);
      mbarrier_init(smem + L::kKFull + slot * 8, 1);
      mbarrier_init(smem + L::kKEmpty + slot * 8, 4 * L::kGroups);
      mbarrier_init(smem + L::kVFull + slot * 8, 1);
      mbarrier_init(smem + L::kVEmpty + slot * 8, 4 * L::kGroups);
    }
    fence_barrier_init();
    prefetch_tensor_map(&params.q_map);
    prefetch_tensor_map(&params.k_map);
    prefetch_tensor_map(&params.v_map);
    prefetch_tensor_map(&params.o_map);
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    registers_decrease<L::kGroups == 2 ? 24 : 32>();
    if (threadIdx.x < 32) produce<kHeadDim>(params, smem, smem_generic);
  } else {
    registers_increase<L::kGroups == 2 ? 240 : 160>();
    consume<T, kHeadDim>(params, smem, smem_generic);
  }
}

}  // namespace attnmux::ffa_sm90
