// What stands around the backward kernel: row sums before it, dQ from fp32 fragments after it.
#pragma once

#include "ffa_sm90/bwd_params.h"
#include "ffa_sm90/ptx.cuh"

namespace attnmux::ffa_sm90 {

template <class T>
__device__ __forceinline__ float2 unpack(uint32_t pair) {
  if constexpr (std::is_same_v<T, __half>) {
    return __half22float2(*reinterpret_cast<const __half2*>(&pair));
  } else {
    return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&pair));
  }
}

struct RowSumParams {
  const void* out;   // [total_q, heads_q, head_dim], inner stride 1, 16-byte aligned rows
  const void* dout;  // likewise
  const float* lse;  // [total_q, heads_q]
  float* lse_log2;   // [heads_q, padded_q]
  float* dout_out;   // [heads_q, padded_q]
  int64_t out_token_stride, out_head_stride, dout_token_stride, dout_head_stride;  // elements
  int32_t total_q, padded_q, heads_q;
};

// lse_log2 = lse log2(e), 0 for rows without keys and beyond the end; dout_out = -rowsum(dout * out). A group of
// head_dim / 8 threads takes a row, 16 bytes of each tensor a thread.
template <class T, int kHeadDim>
__global__ void __launch_bounds__(256) ffa_row_sum_kernel(const RowSumParams params) {
  constexpr int kThreads = kHeadDim / 8;
  const int row = blockIdx.x * (256 / kThreads) + threadIdx.x / kThreads;
  const int head = blockIdx.y;
  const int part = threadIdx.x % kThreads;
  float sum = 0.0f, lse = 0.0f;
  if (row < params.total_q) {
    const uint4 a = *reinterpret_cast<const uint4*>(static_cast<const T*>(params.out) + row * params.out_token_stride +
                                                    head * params.out_head_stride + part * 8);
    const uint4 b =
        *reinterpret_cast<const uint4*>(static_cast<const T*>(params.dout) + row * params.dout_token_stride +
                                        head * params.dout_head_stride + part * 8);
    const uint32_t x[4] = {a.x, a.y, a.z, a.w}, y[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 u = unpack<T>(x[i]), v = unpack<T>(y[i]);
      sum = fmaf(u.x, v.x, fmaf(u.y, v.y, sum));
    }
    lse = params.lse[int64_t{row} * params.heads_q + head];
  }
#pragma unroll
  for (int offset = kThreads / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffff, sum, offset);
  if (part == 0 && row < params.padded_q) {
    const int64_t index = int64_t{head} * params.padded_q + row;
    params.dout_out[index] = -sum;
    params.lse_log2[index] = lse == -INFINITY ? 0.0f : lse * 1.4426950408889634f;
  }
}

struct DqParams {
  const float* fragments;  // as BwdParams::dq
  void* dq;                // [total_q, heads_q, head_dim], inner stride 1, 16-byte aligned rows
  int64_t token_stride, head_stride;
  float scale;
  int32_t total_q, padded_q;
};

// One block for 64 rows of a head (head_dim 128) or 128 rows (64). The accumulators of both warpgroups of a step lie
// behind one another, four of each thread side by side: acc[4 j .. 4 j + 3] of thread t at float4 (g * 8 + j) * 128 +
// t.
template <class T, int kHeadDim>
__global__ void __launch_bounds__(256) ffa_dq_kernel(const DqParams params) {
  constexpr int kRows = backward_rows(kHeadDim);
  constexpr int kPitch = kHeadDim + 8;  // 16-bit elements: keeps rows 16-byte aligned and spreads them over the banks
  __shared__ uint4 tile[kRows * kPitch / 8];
  const int head = blockIdx.y;
  const int first_row = blockIdx.x * kRows;
  const float4* source =
      reinterpret_cast<const float4*>(params.fragments + (int64_t{head} * params.padded_q + first_row) * kHeadDim);
  const int group = threadIdx.x / 128, thread = threadIdx.x % 128, lane = threadIdx.x % 32;
  const int row = thread / 32 * 16 + lane / 4 + (kRows == 128 ? group * 64 : 0);
  const int column = lane % 4 * 2 + (kRows == 64 ? group * 64 : 0);
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const float4 x = source[(group * 8 + j) * 128 + thread];
    uint32_t* pairs = reinterpret_cast<uint32_t*>(tile) + (column + 8 * j) / 2;
    pairs[row * (kPitch / 2)] = pack<T>(x.x * params.scale, x.y * params.scale);
    pairs[(row + 8) * (kPitch / 2)] = pack<T>(x.z * params.scale, x.w * params.scale);
  }
  __syncthreads();
  constexpr int kChunks = kHeadDim / 8;
  for (int i = threadIdx.x; i < kRows * kChunks; i += 256) {
    const int r = i / kChunks, c = i % kChunks;
    if (first_row + r < params.total_q) {
      *reinterpret_cast<uint4*>(static_cast<T*>(params.dq) + (first_row + r) * params.token_stride +
                                head * params.head_stride + c * 8) = tile[r * (kPitch / 8) + c];
    }
  }
}

}  // namespace attnmux::ffa_sm90
