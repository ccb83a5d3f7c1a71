// Backward attention over the transposed tile plan, sm_90a.
//
// An item is (k tile of 128 keys, kv head). A block keeps its K and V in shared memory and its dK and dV in registers
// while it walks the steps of queries that attend the tile, for every query head of the group: no atomics for dK and
// dV. A step is 64 queries (head_dim 128) or 128 (head_dim 64).
//
// 384 threads: warp 0 loads, warp 1 sends dQ, warpgroups 1 and 2 own 64 keys each.
//   S^T = K Q^T, dP^T = V dO^T     keys x queries: P^T and dS^T stay in registers as operands of the next two.
//                                  So does half of V (head_dim 128), for all of an item
//   dV += P^T dO,  dK += dS^T Q
//   dQ  = dS K                     over all 128 keys: dS^T crosses between the warpgroups through shared memory.
//                                  Warpgroup g makes columns 64 g .. of dQ (head_dim 128) or rows 64 g .. (64)
// dQ leaves as fp32 through bulk reduce-add, in the order in which the accumulators lie in registers (see
// ffa_dq_kernel). Blocks add to a step as they come, or, for gradients that are the same in every run (kOrdered), in
// the order of their k tiles: each step of each head counts the tiles that are in (`turns`), and warp 1 waits for its
// rank. Items are then claimed by k tile, so that a block waits only for blocks that run, and steps are walked from the
// last to the first, so that those before it are ahead.
//
// Shared memory (head_dim 128; the same total for 64), tiles of 64 columns with 128-byte swizzle:
//   K, V      64 KB   dK and dV are staged over them on the way out
//   Q[2]      32 KB   dO[2] 32 KB
//   dS^T[2]   32 KB   [keys, queries]
//   dQ[2]     32 KB   one part a warpgroup
//   lse[2], dout_out[2], mask[2], step[4] (where its dQ goes, its rank), header of the item
//
// Barriers: full/empty pairs for K with V, Q and dO. Named barriers: kExchange gathers both warpgroups once dS^T is
// written; kDqFull + g and kDqEmpty + g hand the dQ part of warpgroup g to warp 1 and back; kStore gathers the
// warpgroups before dK overwrites K.
//
// Registers: 240 for warpgroups 1 and 2, without spills; 24 for warps 0 and 1, whose loops spill up to 100 bytes that
// are read while tiles are in flight.
//
// History: TFLOP/s on one H200 in one process, bf16, 32768 tokens, 16:16 heads, head_dim 128 / 64.
//                                          full       causal     varlen     window     prefix
//                                                                causal     1024       tree
//   first version                          582 / 530  577 / 528  411 / 371  404 / 384  524 / 486
//   heads side by side until blocks are    585 / 533  587 / 531  417 / 377  410 / 385  563 / 524
//   occupied
//   turns; masks behind the scale; rows    590 / 531  592 / 530  416 / 373  408 / 375  564 / 521
//   of few keys
//   the same, kOrdered                     434        440        267        348        230
//   FlashAttention-3                       611 / 535  616 / 563  428 / 353  415 / 376
//   half of V in registers (head_dim 128;  614        613        483        450        589
//   another card)
//   FlashAttention-3 in that run           596        604        472        437
// Held against the version before it, in turns of random order, the last one gains 4 to 7% on full and causal masks of
// 8192 and 32768 tokens, 16:16 and 32:8 heads; 4% on windows, 1 to 2% on varlen; kOrdered 2 to 15%.
// Where the time goes (full mask, head_dim 128): a step's products would fill the tensor cores for 2560 clocks. Before
// V was held it took 3580, for shared memory feeds them: 2050 clocks of operands, 256 each of row statistics (a
// broadcast costs as much as any load) and dQ, 128 of dS, and beside these what the copy engine moves. Half of V takes
// 128 off. At head_dim 64 tensor cores are busy 60%, shared memory 73%. Issue slots stay below 30%. Long runs meet the
// card's power limit: there a version's speed depends on its neighbours in turn, by up to 10%.
// Tried at head_dim 128, not kept; speed over that of the version it was tried on, 8192 tokens:
//   S^T of the next step before dK, dV before dP is awaited, three slots for Q: products always in flight, but dK reads
//   dS^T from shared memory, and row sums are subtracted: 0.87; without S^T ahead, dS^T in registers 0.90
//   dV before dP is awaited 0.99; dK before dV is awaited 0.99; sections of 2, 4 or 8 heads 1.00
//   dQ from registers by red.global.add.v4, no warp 1: 0.92
//   more of V in registers: wgmma is serialised; 320 threads leave 248 registers for it, but the kernel hung
#pragma once

#include "ffa_sm90/bwd_params.h"
#include "ffa_sm90/ring.cuh"
#include "ffa_sm90/wgmma.cuh"

namespace attnmux::ffa_sm90 {

// What warp 0 tells the others about an item and about each of its steps.
struct alignas(16) BwdHeader {
  int32_t k_tile;  // -1: no item is left
  int32_t head_kv;
  int32_t num_masked;
  int32_t num_unmasked;
  int32_t num_masked_behind;
};
struct alignas(16) BwdStep {
  int64_t dq;    // where its dQ goes, in elements
  int32_t rank;  // where turns are taken: k tiles that add to it before this one
};

template <int kHeadDim>
struct BwdLayout {
  static constexpr int kRows = backward_rows(kHeadDim);
  static constexpr int kColumnTiles = kHeadDim / 64;
  static constexpr uint32_t kKeyColumnTile = kTile * kSwizzleBytes;    // 64 columns of K or V
  static constexpr uint32_t kQueryColumnTile = kRows * kSwizzleBytes;  // 64 columns of Q or dO
  static constexpr uint32_t kKeyBytes = kKeyColumnTile * kColumnTiles;
  static constexpr uint32_t kQueryBytes = kQueryColumnTile * kColumnTiles;
  static constexpr uint32_t kDsBytes = kTile * kRows * 2;
  static constexpr uint32_t kDqPartBytes = 128 * 32 * 4;  // 32 accumulators a thread
  static constexpr uint32_t kRowBytes = kRows * 4;
  static constexpr uint32_t kMaskBytes = kRows * kTile / 8;

  static constexpr uint32_t kK = 0;
  static constexpr uint32_t kV = kK + kKeyBytes;
  static constexpr uint32_t kQ = kV + kKeyBytes;
  static constexpr uint32_t kDo = kQ + 2 * kQueryBytes;
  static constexpr uint32_t kDs = kDo + 2 * kQueryBytes;
  static constexpr uint32_t kDq = kDs + 2 * kDsBytes;
  static constexpr uint32_t kLse = kDq + 2 * kDqPartBytes;
  static constexpr uint32_t kDoutOut = kLse + 2 * kRowBytes;
  static constexpr uint32_t kMask = kDoutOut + 2 * kRowBytes;
  static constexpr uint32_t kStep = kMask + 2 * kMaskBytes;
  static constexpr uint32_t kHeader = kStep + 4 * sizeof(BwdStep);
  static constexpr uint32_t kBarriers = kHeader + sizeof(BwdHeader);
  static constexpr uint32_t kKvFull = kBarriers, kKvEmpty = kKvFull + 8;
  static constexpr uint32_t kQFull = kKvEmpty + 8, kQEmpty = kQFull + 16;
  static constexpr uint32_t kDoFull = kQEmpty + 16, kDoEmpty = kDoFull + 16;
  static constexpr uint32_t kBytes = kDoEmpty + 16;
  static constexpr uint32_t kAllocated = kBytes + 1024;
};

namespace bwd {

inline constexpr uint32_t kExchange = 1;
inline constexpr uint32_t kDqFull = 2;
inline constexpr uint32_t kDqEmpty = 4;
inline constexpr uint32_t kStore = 6;
inline constexpr int kConsumerWarps = 8;

}  // namespace bwd

// Warp 0. kOrdered: turns are taken.
template <int kHeadDim, bool kOrdered>
__device__ __forceinline__ void backward_load(const BwdParams& params, uint32_t smem, char* smem_generic) {
  using L = BwdLayout<kHeadDim>;
  constexpr int kStepsOfTile = kTile / L::kRows;
  const bool leader = threadIdx.x == 0;
  Ring q;
  uint32_t kv_phase = 0;
  int step_slot = 0;
  const int items = params.num_k_tiles * params.heads_kv;
  const int section_items = params.num_k_tiles * params.section_heads;
  // A block that takes turns waits for items before its own: they have to be claimed in order, by blocks that run.
  const auto claim = [&](int before) {
    const int claimed = leader ? before + atomicAdd(params.counter, 1) : 0;
    return __shfl_sync(0xffffffff, claimed, 0);
  };
  int item = kOrdered ? claim(0) : blockIdx.x;
  while (item < items) {
    const int section = item / section_items;
    const int in_section = item - section * section_items;
    const int rank = in_section / params.section_heads;
    const int head_kv = section * params.section_heads + in_section - rank * params.section_heads;
    const KTileRecord record = params.records[rank];
    const int steps = record.num_masked + record.num_unmasked + (kOrdered ? record.num_masked_behind : 0);

    mbarrier_wait(smem + L::kKvEmpty, kv_phase ^ 1);
    if (leader) {
      *reinterpret_cast<BwdHeader*>(smem_generic + L::kHeader) = {record.k_tile, head_kv, record.num_masked,
                                                                  record.num_unmasked, record.num_masked_behind};
      if (steps > 0) {
        mbarrier_arrive_expect_tx(smem + L::kKvFull, 2 * L::kKeyBytes);
#pragma unroll
        for (int c = 0; c < L::kColumnTiles; ++c) {
          tma_load_3d(smem + L::kK + c * L::kKeyColumnTile, &params.k_map, c * 64, head_kv, record.k_tile * kTile,
                      smem + L::kKvFull, kEvictFirst);
          tma_load_3d(smem + L::kV + c * L::kKeyColumnTile, &params.v_map, c * 64, head_kv, record.k_tile * kTile,
                      smem + L::kKvFull, kEvictFirst);
        }
      } else {
        mbarrier_arrive(smem + L::kKvFull);
      }
    }
    kv_phase ^= 1;

    const auto load_step = [&](int head, int step, int mask) {
      const int64_t row = int64_t{head} * params.padded_q + step * L::kRows;
      mbarrier_wait(smem + L::kQEmpty + q.slot * 8, q.phase ^ 1);
      if (leader) {
        const uint32_t full = smem + L::kQFull + q.slot * 8;
        BwdStep* step_info = reinterpret_cast<BwdStep*>(smem_generic + L::kStep) + step_slot;
        step_info->dq = row * kHeadDim;
        if constexpr (kOrdered) {
          step_info->rank =
              writer_rank(params.writer_begin, params.writers, step / kStepsOfTile, step % kStepsOfTile, record.k_tile);
        }
        mbarrier_arrive_expect_tx(full, L::kQueryBytes + L::kRowBytes + (mask >= 0 ? L::kMaskBytes : 0));
#pragma unroll
        for (int c = 0; c < L::kColumnTiles; ++c) {
          tma_load_3d(smem + L::kQ + q.slot * L::kQueryBytes + c * L::kQueryColumnTile, &params.q_map, c * 64, head,
                      step * L::kRows, full, kEvictLast);
        }
        bulk_load(smem + L::kLse + q.slot * L::kRowBytes, params.lse_log2 + row, L::kRowBytes, full);
        if (mask >= 0) {
          bulk_load(smem + L::kMask + q.slot * L::kMaskBytes, params.masks + int64_t{mask} * L::kMaskBytes,
                    L::kMaskBytes, full);
        }
      }
      mbarrier_wait(smem + L::kDoEmpty + q.slot * 8, q.phase ^ 1);
      if (leader) {
        const uint32_t full = smem + L::kDoFull + q.slot * 8;
        mbarrier_arrive_expect_tx(full, L::kQueryBytes + L::kRowBytes);
#pragma unroll
        for (int c = 0; c < L::kColumnTiles; ++c) {
          tma_load_3d(smem + L::kDo + q.slot * L::kQueryBytes + c * L::kQueryColumnTile, &params.dout_map, c * 64, head,
                      step * L::kRows, full, kEvictLast);
        }
        bulk_load(smem + L::kDoutOut + q.slot * L::kRowBytes, params.dout_out + row, L::kRowBytes, full);
      }
      q.advance();
      step_slot = (step_slot + 1) % 4;
    };

#pragma unroll 1
    for (int h = 0; h < params.group; ++h) {
      const int head = head_kv * params.group + h;
      const int2* entry = params.entries + record.begin;
      int step = 0, run_left = 0;
#pragma unroll 1
      for (int i = 0; i < steps; ++i) {
        int mask = -1;
        if (run_left > 0) {
          step += kOrdered ? -1 : 1;
          --run_left;
        } else {
          const int2 next_entry = *entry++;
          step = next_entry.x;
          if (i < record.num_masked || (kOrdered && i >= record.num_masked + record.num_unmasked)) {
            mask = next_entry.y;
          } else {
            run_left = next_entry.y - 1;
          }
        }
        load_step(head, step, mask);
      }
    }
    item = claim(kOrdered ? 0 : gridDim.x);
  }
  mbarrier_wait(smem + L::kKvEmpty, kv_phase ^ 1);
  if (leader) {
    reinterpret_cast<BwdHeader*>(smem_generic + L::kHeader)->k_tile = -1;
    mbarrier_arrive(smem + L::kKvFull);
  }
}

// Warp 1: adds the dQ parts of both warpgroups to global memory. Where turns are taken, it waits for the step's while
// the warpgroups compute, and passes it on once its own sum is in.
template <int kHeadDim, bool kOrdered>
__device__ __forceinline__ void backward_send_dq(const BwdParams& params, uint32_t smem, const char* smem_generic) {
  using L = BwdLayout<kHeadDim>;
  const bool leader = threadIdx.x % 32 == 0;
  Ring q;
  uint32_t kv_phase = 0;
  int step_slot = 0;
  named_barrier_arrive(bwd::kDqEmpty, 160);
  named_barrier_arrive(bwd::kDqEmpty + 1, 160);
  while (true) {
    mbarrier_wait(smem + L::kKvFull, kv_phase);
    kv_phase ^= 1;
    const BwdHeader header = *reinterpret_cast<const BwdHeader*>(smem_generic + L::kHeader);
    if (header.k_tile < 0) break;
    warp_arrive(smem + L::kKvEmpty);
    const int steps =
        (header.num_masked + header.num_unmasked + (kOrdered ? header.num_masked_behind : 0)) * params.group;
    for (int i = 0; i < steps; ++i) {
      const BwdStep* step = reinterpret_cast<const BwdStep*>(smem_generic + L::kStep) + step_slot;
      int32_t* turn = nullptr;
      if constexpr (kOrdered) {
        mbarrier_wait(smem + L::kQFull + q.slot * 8, q.phase);
        if (leader) {
          turn = params.turns + step->dq / (L::kRows * kHeadDim);
          while (load_acquire(turn) != step->rank) {
          }
          fence_async();
        }
        warp_arrive(smem + L::kQEmpty + q.slot * 8);
        q.advance();
      }
#pragma unroll
      for (int g = 0; g < 2; ++g) {
        named_barrier_sync(bwd::kDqFull + g, 160);
        if (leader) {
          bulk_reduce_add(params.dq + step->dq + g * (L::kDqPartBytes / 4), smem + L::kDq + g * L::kDqPartBytes,
                          L::kDqPartBytes);
          bulk_commit();
        }
      }
      if (leader) bulk_wait_read<1>();
      __syncwarp();
      named_barrier_arrive(bwd::kDqEmpty, 160);
      if (leader) bulk_wait_read<0>();
      __syncwarp();
      named_barrier_arrive(bwd::kDqEmpty + 1, 160);
      if constexpr (kOrdered) {
        if (leader) {
          bulk_wait<0>();
          fence_async();
          add_release(turn, 1);
        }
      }
      step_slot = (step_slot + 1) % 4;
    }
  }
}

template <class T, int kHeadDim, bool kOrdered>
__device__ __forceinline__ void backward_consume(const BwdParams& params, uint32_t smem, char* smem_generic) {
  using L = BwdLayout<kHeadDim>;
  constexpr int kRows = L::kRows;
  constexpr int kS = kRows / 2;     // accumulators of S^T and dP^T
  constexpr int kD = kHeadDim / 2;  // accumulators of dK and dV
  // Columns of V, by 16, that stay in registers: dP^T then reads less shared memory. The assembler takes no more of
  // them, and none at head_dim 64.
  constexpr int kHeld = kHeadDim == 128 ? 4 : 0;
  const int group = threadIdx.x / 128 - 1;
  const int thread = threadIdx.x % 128;
  const int lane = threadIdx.x % 32;
  const int matrix = lane / 8, matrix_row = (matrix & 1) * 8 + lane % 8;
  const uint32_t warp_row = (group * 64 + thread / 32 * 16 + matrix_row) * kSwizzleBytes;
  const float scale_log2 = params.scale_log2;
  Ring q;
  uint32_t kv_phase = 0;
  float dk[kD], dv[kD];
  uint32_t v[kHeadDim / 16][4];  // the first kHeld

  // Four 8 x 8 blocks of 16 bits: rows of this warp, columns 16 j .. 16 j + 15 of a tile whose 64 columns lie in
  // kKeyColumnTile bytes.
  const auto block = [&](uint32_t base, int j) {
    const uint32_t chunk = (2 * (j % 4) + (matrix >> 1)) ^ (matrix_row % 8);
    return base + j / 4 * L::kKeyColumnTile + warp_row + chunk * 16;
  };
  const auto store_block = [&](uint32_t base, int j, const uint32_t(&x)[4]) {
    store_matrix_x4(block(base, j), x[0], x[1], x[2], x[3]);
  };

  const auto step = [&](auto masked) {
    float s[kS], dp[kS], dq[32];
    uint32_t p[kS / 8][4], ds[kS / 8][4];
    const uint32_t key_smem = opaque(smem);
    const uint32_t q_smem = smem + L::kQ + q.slot * L::kQueryBytes;
    const uint32_t do_smem = smem + L::kDo + q.slot * L::kQueryBytes;
    const uint32_t ds_smem = smem + L::kDs + q.slot * L::kDsBytes;
    // Keys on rows: this thread's columns of queries are 8 j + 2 (lane % 4) + {0, 1}.
    const float2* lse = reinterpret_cast<const float2*>(smem_generic + L::kLse + q.slot * L::kRowBytes) + lane % 4;
    const float2* dout_out =
        reinterpret_cast<const float2*>(smem_generic + L::kDoutOut + q.slot * L::kRowBytes) + lane % 4;

    mbarrier_wait(smem + L::kQFull + q.slot * 8, q.phase);
    mbarrier_wait(smem + L::kDoFull + q.slot * 8, q.phase);
    // The product is added to -rowsum(dout * out), which saves the subtraction.
#pragma unroll
    for (int j = 0; j < kRows / 8; ++j) {
      const float2 column = dout_out[4 * j];
      dp[4 * j] = dp[4 * j + 2] = column.x;
      dp[4 * j + 1] = dp[4 * j + 3] = column.y;
    }
    pin(dp);
    wgmma_fence();
    {
      const uint64_t a = descriptor_k_major(key_smem + L::kK + group * 64 * kSwizzleBytes);
      const uint64_t b = descriptor_k_major(q_smem);
#pragma unroll
      for (int i = 0; i < kHeadDim / 16; ++i) {
        wgmma_ss<T, 0, 0>(s, advance(a, i / 4 * L::kKeyColumnTile + i % 4 * 32),
                          advance(b, i / 4 * L::kQueryColumnTile + i % 4 * 32), i > 0);
      }
      wgmma_commit();
    }
    wgmma_fence();
    {
      const uint64_t a = descriptor_k_major(key_smem + L::kV + group * 64 * kSwizzleBytes);
      const uint64_t b = descriptor_k_major(do_smem);
#pragma unroll
      for (int i = 0; i < kHeadDim / 16; ++i) {
        const uint64_t columns = advance(b, i / 4 * L::kQueryColumnTile + i % 4 * 32);
        if (i < kHeld) {
          wgmma_rs<T, 0>(dp, v[i], columns, 1);
        } else {
          wgmma_ss<T, 0, 0>(dp, advance(a, i / 4 * L::kKeyColumnTile + i % 4 * 32), columns, 1);
        }
      }
      wgmma_commit();
    }

    wgmma_wait<1>();
    pin(s);
    uint32_t mask[kS / 32];
    if constexpr (masked.value) {
#pragma unroll
      for (int w = 0; w < kS / 32; ++w) {
        mask[w] = *reinterpret_cast<const uint32_t*>(smem_generic + L::kMask + q.slot * L::kMaskBytes + w * 1024 +
                                                     group * 512 + thread * 4);
      }
    }
    // The mask comes behind the scale, which may be 0 or negative.
#pragma unroll
    for (int j = 0; j < kRows / 8; ++j) {
      const float2 column = lse[4 * j];
#pragma unroll
      for (int i = 4 * j; i < 4 * j + 4; ++i) {
        s[i] = fmaf(s[i], scale_log2, i % 2 == 0 ? -column.x : -column.y);
        if constexpr (masked.value) {
          if (!(mask[i / 32] & (1u << i % 32))) s[i] = -INFINITY;
        }
        s[i] = exp2_approx(s[i]);
      }
    }
    wgmma_wait<0>();
    pin(dp);
#pragma unroll
    for (int i = 0; i < kS; ++i) dp[i] *= s[i];
#pragma unroll
    for (int j = 0; j < kS / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        p[j][i] = pack<T>(s[8 * j + 2 * i], s[8 * j + 2 * i + 1]);
        ds[j][i] = pack<T>(dp[8 * j + 2 * i], dp[8 * j + 2 * i + 1]);
      }
      store_block(ds_smem, j, ds[j]);
    }

    wgmma_fence();
    {
      const uint64_t b = descriptor_mn_major(do_smem, L::kQueryColumnTile);
#pragma unroll
      for (int i = 0; i < kRows / 16; ++i) wgmma_rs<T, 1>(dv, p[i], advance(b, i * 2048), 1);
      wgmma_commit();
    }
    fence_async_shared();
    named_barrier_sync(bwd::kExchange, 256);
    wgmma_fence();
    {
      // Both tiles have keys on rows.
      const uint64_t a = descriptor_mn_major(ds_smem + (kRows == 128 ? group * L::kKeyColumnTile : 0), 0);
      const uint64_t b = descriptor_mn_major(key_smem + L::kK + (kRows == 64 ? group * L::kKeyColumnTile : 0), 0);
#pragma unroll
      for (int i = 0; i < kTile / 16; ++i) {
        wgmma_ss<T, 1, 1>(dq, advance(a, i * 2048), advance(b, i * 2048), i > 0);
      }
      wgmma_commit();
    }
    wgmma_wait<1>();
    pin(dv);
    warp_arrive(smem + L::kDoEmpty + q.slot * 8);
    wgmma_fence();
    {
      const uint64_t b = descriptor_mn_major(q_smem, L::kQueryColumnTile);
#pragma unroll
      for (int i = 0; i < kRows / 16; ++i) wgmma_rs<T, 1>(dk, ds[i], advance(b, i * 2048), 1);
      wgmma_commit();
    }
    wgmma_wait<1>();
    pin(dq);
    named_barrier_sync(bwd::kDqEmpty + group, 160);
    float4* part = reinterpret_cast<float4*>(smem_generic + L::kDq + group * L::kDqPartBytes) + thread;
#pragma unroll
    for (int i = 0; i < 8; ++i) part[i * 128] = make_float4(dq[4 * i], dq[4 * i + 1], dq[4 * i + 2], dq[4 * i + 3]);
    fence_async_shared();
    named_barrier_arrive(bwd::kDqFull + group, 160);
    wgmma_wait<0>();
    pin(dk);
    warp_arrive(smem + L::kQEmpty + q.slot * 8);
    q.advance();
  };

  while (true) {
    mbarrier_wait(smem + L::kKvFull, kv_phase);
    kv_phase ^= 1;
    const BwdHeader header = *reinterpret_cast<const BwdHeader*>(smem_generic + L::kHeader);
    const int k_tile = header.k_tile, head_kv = header.head_kv;
    if (k_tile < 0) break;
#pragma unroll
    for (int i = 0; i < kD; ++i) dk[i] = dv[i] = 0.0f;
#pragma unroll
    for (int i = 0; i < kHeld; ++i) load_matrix_x4(block(smem + L::kV, i), v[i]);
#pragma unroll 1
    for (int h = 0; h < params.group; ++h) {
      // Where turns are taken, twice through the same code, so that the masked step stands once in it.
#pragma unroll 1
      for (int part = 0; part < (kOrdered ? 2 : 1); ++part) {
        const int masked = part == 0 ? header.num_masked : header.num_masked_behind;
        const int unmasked = part == 0 ? header.num_unmasked : 0;
#pragma unroll 1
        for (int i = 0; i < masked; ++i) step(std::true_type{});
#pragma unroll 1
        for (int i = 0; i < unmasked; ++i) step(std::false_type{});
      }
    }

    // The other warpgroup may still read this one's rows of K for its last dQ.
    named_barrier_sync(bwd::kStore, 256);
#pragma unroll
    for (int j = 0; j < kHeadDim / 16; ++j) {
      uint32_t x[4], y[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        x[i] = pack<T>(dk[8 * j + 2 * i] * params.scale, dk[8 * j + 2 * i + 1] * params.scale);
        y[i] = pack<T>(dv[8 * j + 2 * i], dv[8 * j + 2 * i + 1]);
      }
      store_block(smem + L::kK, j, x);
      store_block(smem + L::kV, j, y);
    }
    fence_async_shared();
    named_barrier_sync(bwd::kStore, 256);
    if (thread == 0) {
      const int row = k_tile * kTile + group * 64;
#pragma unroll
      for (int c = 0; c < L::kColumnTiles; ++c) {
        const uint32_t offset = c * L::kKeyColumnTile + group * 64 * kSwizzleBytes;
        tma_store_3d(&params.dk_map, c * 64, head_kv, row, smem + L::kK + offset);
        tma_store_3d(&params.dv_map, c * 64, head_kv, row, smem + L::kV + offset);
      }
      bulk_commit();
      bulk_wait_read<0>();
      mbarrier_arrive(smem + L::kKvEmpty);
    }
  }
}

template <class T, int kHeadDim, bool kOrdered>
__global__ void __launch_bounds__(384, 1) ffa_bwd_kernel(const __grid_constant__ BwdParams params) {
  using L = BwdLayout<kHeadDim>;
  extern __shared__ char smem_raw[];
  const uint32_t raw = smem_address(smem_raw);
  const uint32_t smem = (raw + 1023) & ~1023u;
  char* smem_generic = smem_raw + (smem - raw);
  if (threadIdx.x == 0) {
    mbarrier_init(smem + L::kKvFull, 1);
    mbarrier_init(smem + L::kKvEmpty, 3);
#pragma unroll
    for (int slot = 0; slot < 2; ++slot) {
      mbarrier_init(smem + L::kQFull + slot * 8, 1);
      mbarrier_init(smem + L::kQEmpty + slot * 8, bwd::kConsumerWarps + (kOrdered ? 1 : 0));
      mbarrier_init(smem + L::kDoFull + slot * 8, 1);
      mbarrier_init(smem + L::kDoEmpty + slot * 8, bwd::kConsumerWarps);
    }
    fence_barrier_init();
    prefetch_tensor_map(&params.q_map);
    prefetch_tensor_map(&params.dout_map);
    prefetch_tensor_map(&params.k_map);
    prefetch_tensor_map(&params.v_map);
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    registers_decrease<24>();
    if (threadIdx.x < 32) {
      backward_load<kHeadDim, kOrdered>(params, smem, smem_generic);
    } else if (threadIdx.x < 64) {
      backward_send_dq<kHeadDim, kOrdered>(params, smem, smem_generic);
    }
  } else {
    registers_increase<240>();
    backward_consume<T, kHeadDim, kOrdered>(params, smem, smem_generic);
  }
}

}  // namespace attnmux::ffa_sm90
