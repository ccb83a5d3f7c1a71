// Launching the kernels: plain pointers and strides, no LibTorch. Every function enqueues on `stream` and returns; none
// synchronises, so all may be captured in a CUDA graph. Errors are thrown as Error before anything is launched.
#pragma once

#include <driver_types.h>

#include <cstdint>

#include "ffa_sm90/bwd_params.h"

namespace attnmux::ffa_sm90 {

enum class Element : uint8_t { kBFloat16, kFloat16 };

// [tokens, heads, head_dim] with inner stride 1; base and strides multiples of 16 bytes.
struct TensorView {
  void* data = nullptr;
  int64_t tokens = 0;
  int64_t heads = 0;
  int64_t head_dim = 0;
  int64_t token_stride = 0;  // in elements
  int64_t head_stride = 0;
};

// A ForwardPlan in device memory.
struct DeviceForwardPlan {
  const QTileRecord* records = nullptr;
  const int2* entries = nullptr;
  const uint32_t* masks = nullptr;
  int32_t num_q_tiles = 0;
};

// Who calls, and where the call's first kernel stores that it has begun; see attnmux/launch_mark.h.
struct LaunchMark {
  uint32_t caller = 0;
  uint32_t* begun = nullptr;
};

struct ForwardCall {
  Element element = Element::kBFloat16;
  TensorView q, k, v, out;
  float* lse = nullptr;        // [tokens_q, heads_q]
  int32_t* counter = nullptr;  // one int of scratch
  float softmax_scale = 1.0f;
  DeviceForwardPlan plan;
  LaunchMark mark;
};

// head_dim 64 or 128. Launches on the current device.
void forward(const ForwardCall& call, cudaStream_t stream);

// A BackwardPlan in device memory.
struct DeviceBackwardPlan {
  const KTileRecord* records = nullptr;
  const int2* entries = nullptr;
  const KTileRecord* ordered_records = nullptr;
  const int2* ordered_entries = nullptr;
  const void* masks = nullptr;
  const int32_t* writer_begin = nullptr;
  const WriterRun* writers = nullptr;
  const ScarceRow* scarce_rows = nullptr;
  int32_t num_scarce_rows = 0;
  int32_t num_k_tiles = 0;
};

struct BackwardCall {
  Element element = Element::kBFloat16;
  TensorView q, k, v, out, dout;  // out and dout: head and token strides multiples of 16 bytes, too
  const float* lse = nullptr;     // [tokens_q, heads_q]
  TensorView dq, dk, dv;
  void* workspace = nullptr;  // backward_workspace_bytes, 256-byte aligned
  float softmax_scale = 1.0f;
  bool deterministic = false;  // dq summed in a fixed order
  DeviceBackwardPlan plan;
  LaunchMark mark;
};

// fp32 dQ, two numbers a row, the work counter and, where the order of sums is fixed, a counter for each step.
int64_t backward_workspace_bytes(int64_t tokens_q, int64_t heads_q, int64_t head_dim, bool deterministic);

void backward(const BackwardCall& call, cudaStream_t stream);

}  // namespace attnmux::ffa_sm90
