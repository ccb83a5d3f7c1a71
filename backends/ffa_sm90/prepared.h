// A mask prepared for the kernels: its plans in the memory of one GPU.
#pragma once

#include <ATen/core/Tensor.h>

#include "attnmux/backend.h"
#include "attnmux/launch_mark.h"
#include "ffa_sm90/launch.h"

namespace attnmux::ffa_sm90 {

// What the kernels count in 32 bits: tokens, and items of work (at most one for 64 tokens of a head).
inline constexpr int64_t kMaxTokens = (int64_t{1} << 31) - 256;
inline constexpr int64_t kMaxItems = int64_t{1} << 30;
inline constexpr int64_t kMaxHeads = 65535;  // one dimension of a grid
inline int64_t items(int64_t tokens, int64_t heads_q) { return (tokens + kStrip - 1) / kStrip * heads_q; }

class FfaPrepared final : public Prepared {
 public:
  // Throws Error(kUnsupported) for a GPU that is not of compute capability 9.0, Error(kInvalidArgument) for more tokens
  // or heads than the kernels can count.
  FfaPrepared(const AttnMaskSpec& mask, const AttentionShape& shape);

  const AttentionShape& shape() const { return shape_; }
  int64_t total_q() const { return total_q_; }
  int64_t total_k() const { return total_k_; }
  const DeviceForwardPlan& forward_plan() const { return forward_plan_; }
  const DeviceBackwardPlan& backward_plan() const { return backward_plan_; }
  LaunchMark mark() const { return {.caller = current_caller(), .begun = begun_}; }

  // Keeps the plans' memory from being reused before `stream` is done with them.
  void used_on(const c10::Stream& stream) const { blob_.record_stream(stream); }

 private:
  AttentionShape shape_;
  int64_t total_q_ = 0;
  int64_t total_k_ = 0;
  at::Tensor blob_;  // both plans, one upload
  DeviceForwardPlan forward_plan_;
  DeviceBackwardPlan backward_plan_;
  uint32_t* begun_;  // of this GPU, for all masks
};

}  // namespace attnmux::ffa_sm90
