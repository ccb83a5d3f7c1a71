#include <algorithm>
#include <string>

#include "ffa_sm90/bwd_pre_post_sm90.cuh"
#include "ffa_sm90/cuda_check.h"
#include "ffa_sm90/ffa_bwd_sm90.cuh"
#include "ffa_sm90/launch.h"
#include "ffa_sm90/tensor_map.h"

namespace attnmux::ffa_sm90 {
namespace {

// Q, dO and the fp32 dQ of the heads that run side by side should stay in the L2 cache.
constexpr int64_t kSectionBytes = 40 << 20;

int64_t padded(int64_t tokens) { return (tokens + kTile - 1) / kTile * kTile; }

struct Workspace {
  float* dq;
  float* lse_log2;
  float* dout_out;
  int32_t* counter;  // turns right behind it: one memset clears both
  int32_t* turns;
};

int64_t num_turns(int64_t tokens_q, int64_t heads_q, int64_t head_dim) {
  return padded(tokens_q) / backward_rows(static_cast<int>(head_dim)) * heads_q;
}

Workspace split_workspace(void* base, int64_t tokens_q, int64_t heads_q, int64_t head_dim) {
  const int64_t rows = padded(tokens_q) * heads_q;
  float* dq = static_cast<float*>(base);
  float* lse_log2 = dq + rows * head_dim;
  float* dout_out = lse_log2 + rows;
  int32_t* counter = reinterpret_cast<int32_t*>(dout_out + rows);
  return {dq, lse_log2, dout_out, counter, counter + 1};
}

// kv heads of the largest divisor of heads_kv whose queries fit into the section, but enough to occupy all blocks: the
// last section has nothing behind it that would fill idle ones.
int32_t section_heads(const BackwardCall& call) {
  const int64_t heads_kv = call.k.heads;
  const int64_t head_bytes = call.q.tokens * call.q.head_dim * (2 + 2 + 4) * (call.q.heads / heads_kv);
  int64_t heads = std::clamp<int64_t>(kSectionBytes / std::max<int64_t>(head_bytes, 1), 1, heads_kv);
  while (heads_kv % heads != 0) --heads;
  while (heads < heads_kv && (heads_kv % heads != 0 || heads * call.plan.num_k_tiles < multiprocessors())) ++heads;
  return static_cast<int32_t>(heads);
}

template <class T, int kHeadDim>
void launch(const BackwardCall& call, const BwdParams& params, const Workspace& workspace, cudaStream_t stream) {
  constexpr uint32_t kShared = BwdLayout<kHeadDim>::kAllocated;
  const auto kernel = call.deterministic ? ffa_bwd_kernel<T, kHeadDim, true> : ffa_bwd_kernel<T, kHeadDim, false>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared),
        "raising the backward kernel's shared memory");

  const int64_t padded_q = params.padded_q;
  const auto heads_q = static_cast<unsigned>(call.q.heads);
  check(cudaMemsetAsync(workspace.dq, 0, padded_q * call.q.heads * kHeadDim * sizeof(float), stream), "clearing dq");
  const int64_t counters = 1 + (call.deterministic ? num_turns(call.q.tokens, call.q.heads, kHeadDim) : 0);
  check(cudaMemsetAsync(workspace.counter, 0, counters * sizeof(int32_t), stream), "clearing the work counter");
  const RowSumParams row_sum{.out = call.out.data,
                             .dout = call.dout.data,
                             .lse = call.lse,
                             .lse_log2 = workspace.lse_log2,
                             .dout_out = workspace.dout_out,
                             .out_token_stride = call.out.token_stride,
                             .out_head_stride = call.out.head_stride,
                             .dout_token_stride = call.dout.token_stride,
                             .dout_head_stride = call.dout.head_stride,
                             .total_q = static_cast<int32_t>(call.q.tokens),
                             .padded_q = params.padded_q,
                             .heads_q = static_cast<int32_t>(call.q.heads),
                             .caller = call.mark.caller,
                             .begun = call.mark.begun};
  constexpr int kRowsOfBlock = 256 / (kHeadDim / 8);
  ffa_row_sum_kernel<T, kHeadDim>
      <<<dim3(static_cast<unsigned>(padded_q / kRowsOfBlock), heads_q), 256, 0, stream>>>(row_sum);
  check(cudaGetLastError(), "launching the row sums");
  if (call.plan.num_scarce_rows > 0) {
    const ScarceRowParams scarce{.rows = call.plan.scarce_rows,
                                 .q = call.q.data,
                                 .dout = call.dout.data,
                                 .k = call.k.data,
                                 .v = call.v.data,
                                 .lse_log2 = workspace.lse_log2,
                                 .dout_out = workspace.dout_out,
                                 .q_token_stride = call.q.token_stride,
                                 .q_head_stride = call.q.head_stride,
                                 .dout_token_stride = call.dout.token_stride,
                                 .dout_head_stride = call.dout.head_stride,
                                 .k_token_stride = call.k.token_stride,
                                 .k_head_stride = call.k.head_stride,
                                 .v_token_stride = call.v.token_stride,
                                 .v_head_stride = call.v.head_stride,
                                 .scale_log2 = params.scale_log2,
                                 .num_rows = call.plan.num_scarce_rows,
                                 .padded_q = params.padded_q,
                                 .group = params.group};
    const int blocks = (scarce.num_rows + kRowsOfBlock - 1) / kRowsOfBlock;
    ffa_scarce_row_kernel<T, kHeadDim><<<dim3(static_cast<unsigned>(blocks), heads_q), 256, 0, stream>>>(scarce);
    check(cudaGetLastError(), "launching the row sums of rows of few keys");
  }

  const int64_t items = int64_t{params.num_k_tiles} * params.heads_kv;
  kernel<<<static_cast<int>(std::min<int64_t>(items, multiprocessors())), 384, kShared, stream>>>(params);
  check(cudaGetLastError(), "launching the backward kernel");

  const DqParams dq{.fragments = workspace.dq,
                    .dq = call.dq.data,
                    .token_stride = call.dq.token_stride,
                    .head_stride = call.dq.head_stride,
                    .scale = call.softmax_scale,
                    .total_q = static_cast<int32_t>(call.q.tokens),
                    .padded_q = params.padded_q};
  ffa_dq_kernel<T, kHeadDim>
      <<<dim3(static_cast<unsigned>(padded_q / backward_rows(kHeadDim)), heads_q), 256, 0, stream>>>(dq);
  check(cudaGetLastError(), "launching the conversion of dq");
}

}  // namespace

int64_t backward_workspace_bytes(int64_t tokens_q, int64_t heads_q, int64_t head_dim, bool deterministic) {
  return padded(tokens_q) * heads_q * (head_dim + 2) * 4 + 16 +
         (deterministic ? num_turns(tokens_q, heads_q, head_dim) * 4 : 0);
}

void backward(const BackwardCall& call, cudaStream_t stream) {
  bind_context();
  const Workspace workspace = split_workspace(call.workspace, call.q.tokens, call.q.heads, call.q.head_dim);
  const uint32_t rows = backward_rows(static_cast<int>(call.q.head_dim));
  const BwdParams params{
      .q_map = make_tensor_map("q", call.q, call.element, rows),
      .dout_map = make_tensor_map("dout", call.dout, call.element, rows),
      .k_map = make_tensor_map("k", call.k, call.element, kTile),
      .v_map = make_tensor_map("v", call.v, call.element, kTile),
      .dk_map = make_tensor_map("dk", call.dk, call.element, kTile / 2),
      .dv_map = make_tensor_map("dv", call.dv, call.element, kTile / 2),
      .records = call.deterministic ? call.plan.ordered_records : call.plan.records,
      .entries = call.deterministic ? call.plan.ordered_entries : call.plan.entries,
      .masks = static_cast<const char*>(call.plan.masks),
      .turns = workspace.turns,
      .writer_begin = call.plan.writer_begin,
      .writers = call.plan.writers,
      .counter = workspace.counter,
      .lse_log2 = workspace.lse_log2,
      .dout_out = workspace.dout_out,
      .dq = workspace.dq,
      .scale = call.softmax_scale,
      .scale_log2 = call.softmax_scale * 1.4426950408889634f,
      .num_k_tiles = call.plan.num_k_tiles,
      .heads_kv = static_cast<int32_t>(call.k.heads),
      .group = static_cast<int32_t>(call.q.heads / call.k.heads),
      .section_heads = section_heads(call),
      .padded_q = static_cast<int32_t>(padded(call.q.tokens)),
  };
  const bool bf16 = call.element == Element::kBFloat16;
  if (call.q.head_dim == 128) {
    bf16 ? launch<__nv_bfloat16, 128>(call, params, workspace, stream)
         : launch<__half, 128>(call, params, workspace, stream);
  } else if (call.q.head_dim == 64) {
    bf16 ? launch<__nv_bfloat16, 64>(call, params, workspace, stream)
         : launch<__half, 64>(call, params, workspace, stream);
  } else {
    throw Error(ErrorCode::kInvalidArgument,
                "head_dim " + std::to_string(call.q.head_dim) + "; the kernel is built for 64 and 128");
  }
}

}  // namespace attnmux::ffa_sm90
