#include <algorithm>
#include <string>

#include "ffa_sm90/cuda_check.h"
#include "ffa_sm90/ffa_fwd_sm90.cuh"
#include "ffa_sm90/launch.h"
#include "ffa_sm90/tensor_map.h"

namespace attnmux::ffa_sm90 {
namespace {

// K and V of the heads that run side by side should stay in the L2 cache.
constexpr int64_t kSectionBytes = 32 << 20;

// Query heads of the largest divisor of heads_kv whose keys and values fit into the section.
int32_t section_heads(const ForwardCall& call) {
  const int64_t heads_kv = call.k.heads;
  const int64_t head_bytes = std::max<int64_t>(call.k.tokens * call.k.head_dim * 2 * 2, 1);
  int64_t heads = std::clamp<int64_t>(kSectionBytes / head_bytes, 1, heads_kv);
  while (heads_kv % heads != 0) --heads;
  return static_cast<int32_t>(heads * (call.q.heads / heads_kv));
}

template <class T, int kHeadDim>
void launch(const FwdParams& params, cudaStream_t stream) {
  constexpr uint32_t kShared = FwdLayout<kHeadDim>::kAllocated;
  const auto kernel = ffa_fwd_kernel<T, kHeadDim>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared),
        "raising the forward kernel's shared memory");
  const int64_t items = int64_t{params.num_q_tiles} * params.heads_q;
  const int grid = static_cast<int>(std::min<int64_t>(items, multiprocessors()));
  if (items > grid) check(cudaMemsetAsync(params.counter, 0, sizeof(int32_t), stream), "clearing the work counter");
  kernel<<<grid, FwdLayout<kHeadDim>::kThreads, kShared, stream>>>(params);
  check(cudaGetLastError(), "launching the forward kernel");
}

}  // namespace

void forward(const ForwardCall& call, cudaStream_t stream) {
  if (call.q.tokens == 0) return;
  bind_context();
  const FwdParams params{
      .q_map = make_tensor_map("q", call.q, call.element, forward_strips(static_cast<int>(call.q.head_dim)) * kStrip),
      .k_map = make_tensor_map("k", call.k, call.element, kTile),
      .v_map = make_tensor_map("v", call.v, call.element, kTile),
      .o_map = make_tensor_map("out", call.out, call.element, kStrip),
      .records = call.plan.records,
      .entries = call.plan.entries,
      .masks = call.plan.masks,
      .counter = call.counter,
      .lse = call.lse,
      .scale_log2 = call.softmax_scale * 1.4426950408889634f,
      .num_q_tiles = call.plan.num_q_tiles,
      .heads_q = static_cast<int32_t>(call.q.heads),
      .group = static_cast<int32_t>(call.q.heads / call.k.heads),
      .section_heads = section_heads(call),
      .total_q = static_cast<int32_t>(call.q.tokens),
      .caller = call.mark.caller,
      .begun = call.mark.begun,
  };
  const bool bf16 = call.element == Element::kBFloat16;
  if (call.q.head_dim == 128) {
    bf16 ? launch<__nv_bfloat16, 128>(params, stream) : launch<__half, 128>(params, stream);
  } else if (call.q.head_dim == 64) {
    bf16 ? launch<__nv_bfloat16, 64>(params, stream) : launch<__half, 64>(params, stream);
  } else {
    throw Error(ErrorCode::kInvalidArgument,
                "head_dim " + std::to_string(call.q.head_dim) + "; the kernel is built for 64 and 128");
  }
}

}  // namespace attnmux::ffa_sm90
