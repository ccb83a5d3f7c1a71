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

// Tensors with inner stride 1 and 16-byte aligned rows; strides in elements.
struct RowSumParams {
  const void* out;   // [total_q, heads_q, head_dim]
  const void* dout;  // likewise
  const float* lse;  // [total_q, heads_q]
  float* lse_log2;   // [heads_q, padded_q]
  float* dout_out;   // [heads_q, padded_q]
  int64_t out_token_stride, out_head_stride, dout_token_stride, dout_head_stride;
  int32_t total_q, padded_q, heads_q;
  uint32_t caller;  // stored to *begun by the first block, see attnmux/launch_mark.h
  uint32_t* begun;
};

// Eight elements of a row.
template <class T>
__device__ __forceinline__ uint4 load_part(const void* tensor, int64_t element) {
  return *reinterpret_cast<const uint4*>(static_cast<const T*>(tensor) + element);
}

template <class T>
__device__ __forceinline__ float dot(const uint4& a, const uint4& b) {
  const uint32_t x[4] = {a.x, a.y, a.z, a.w}, y[4] = {b.x, b.y, b.z, b.w};
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 u = unpack<T>(x[i]), v = unpack<T>(y[i]);
    sum = fmaf(u.x, v.x, fmaf(u.y, v.y, sum));
  }
  return sum;
}

// Over groups of kThreads threads; the whole warp takes part.
template <int kThreads>
__device__ __forceinline__ float group_sum(float part) {
#pragma unroll
  for (int offset = kThreads / 2; offset > 0; offset /= 2) part += __shfl_xor_sync(0xffffffff, part, offset);
  return part;
}

// lse_log2 = lse log2(e), 0 for rows without keys and beyond the end; dout_out = -rowsum(dout * out). A group of
// head_dim / 8 threads takes a row, 16 bytes of each tensor a thread.
template <class T, int kHeadDim>
__global__ void __launch_bounds__(256) ffa_row_sum_kernel(const RowSumParams params) {
  if (threadIdx.x == 0 && blockIdx.x == 0 && blockIdx.y == 0) store_to_host(params.begun, params.caller);
  constexpr int kThreads = kHeadDim / 8;
  const int row = blockIdx.x * (256 / kThreads) + threadIdx.x / kThreads;
  const int head = blockIdx.y;
  const int part = threadIdx.x % kThreads;
  float sum = 0.0f, lse = 0.0f;
  if (row < params.total_q) {
    sum = dot<T>(load_part<T>(params.out, row * params.out_token_stride + head * params.out_head_stride + part * 8),
                 load_part<T>(params.dout, row * params.dout_token_stride + head * params.dout_head_stride + part * 8));
    lse = params.lse[int64_t{row} * params.heads_q + head];
  }
  sum = group_sum<kThreads>(sum);
  if (part == 0 && row < params.padded_q) {
    const int64_t index = int64_t{head} * params.padded_q + row;
    params.dout_out[index] = -sum;
    params.lse_log2[index] = lse == -INFINITY ? 0.0f : lse * 1.4426950408889634f;
  }
}

struct ScarceRowParams {
  const ScarceRow* rows;
  const void *q, *dout;   // [total_q, heads_q, head_dim]
  const void *k, *v;      // [total_k, heads_kv, head_dim]
  const float* lse_log2;  // as above
  float* dout_out;
  int64_t q_token_stride, q_head_stride, dout_token_stride, dout_head_stride;
  int64_t k_token_stride, k_head_stride, v_token_stride, v_head_stride;
  float scale_log2;
  int32_t num_rows, padded_q, group;
};

// Out is rounded. Over many keys it is small, and its rounding is lost among that of P and dS. In a row of a few keys
// it is as large as V, and dS = P (dP - rowsum(dout * out)) cancels: there rowsum = sum P dP is taken over the keys
// themselves. Unless they are not the whole softmax, which may have run over more keys than this call's.
template <class T, int kHeadDim>
__global__ void __launch_bounds__(256) ffa_scarce_row_kernel(const ScarceRowParams params) {
  constexpr int kThreads = kHeadDim / 8;
  const int index = blockIdx.x * (256 / kThreads) + threadIdx.x / kThreads;
  const int head = blockIdx.y, head_kv = head / params.group;
  const int part = threadIdx.x % kThreads * 8;
  const ScarceRow scarce = params.rows[min(index, params.num_rows - 1)];
  const int64_t place = int64_t{head} * params.padded_q + scarce.row;
  const float lse_log2 = params.lse_log2[place];
  const uint4 q = load_part<T>(params.q, scarce.row * params.q_token_stride + head * params.q_head_stride + part);
  const uint4 dout =
      load_part<T>(params.dout, scarce.row * params.dout_token_stride + head * params.dout_head_stride + part);
  float total = 0.0f, sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kScarceKeys; ++i) {
    const int64_t key = max(scarce.keys[i], 0);
    const uint4 k = load_part<T>(params.k, key * params.k_token_stride + head_kv * params.k_head_stride + part);
    const uint4 v = load_part<T>(params.v, key * params.v_token_stride + head_kv * params.v_head_stride + part);
    const float s = group_sum<kThreads>(dot<T>(q, k)), dp = group_sum<kThreads>(dot<T>(dout, v));
    const float p = scarce.keys[i] < 0 ? 0.0f : exp2_approx(fmaf(s, params.scale_log2, -lse_log2));
    total += p;
    sum = fmaf(p, dp, sum);
  }
  // The quotient is free of what lse was rounded by.
  if (part == 0 && index < params.num_rows && total > 1.0f - 1e-4f) params.dout_out[place] = -sum / total;
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
