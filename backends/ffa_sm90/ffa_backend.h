// "magi" on Hopper GPUs: flexible flash attention over the tile plan, forward and backward, sm_90a.
//
// Every mask, grouped-query heads, head_dim 64 and 128, bf16 and fp16. Time is proportional to the tiles that the mask
// touches, memory to the length. Inputs must be finite: a masked key's value is multiplied by 0, not skipped. Tensors
// whose inner stride is not 1, or whose base or strides are not multiples of 16 bytes, are copied.
//
// prepare() uploads the plan; after that a call allocates its results and scratch from LibTorch's allocator, enqueues
// on the current stream and never synchronises, so that it may be captured in a CUDA graph.
//
// Read in this order: fwd_params.h and bwd_params.h (what a kernel sees), ffa_fwd_sm90.cuh and ffa_bwd_sm90.cuh (the
// kernels), wgmma.cuh, ptx.cuh, ring.cuh; forward_plan.h, backward_plan.h (from the tile plan), launch.h.
#pragma once

#include <memory>

#include "attnmux/backend.h"

namespace attnmux::ffa_sm90 {

// Loads and answers query() on a machine without a GPU, too.
std::shared_ptr<const AttentionBackend> make_backend();

}  // namespace attnmux::ffa_sm90
