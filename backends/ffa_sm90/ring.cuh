// Slot and phase of a two-deep ring of shared-memory buffers guarded by mbarriers.
#pragma once

#include "ffa_sm90/ptx.cuh"

namespace attnmux::ffa_sm90 {

struct Ring {
  uint32_t slot = 0;
  uint32_t phase = 0;
  __device__ void advance() {
    phase ^= slot;
    slot ^= 1;
  }
};

// One arrival for the warp, after all its lanes are done.
inline __device__ void warp_arrive(uint32_t barrier) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) mbarrier_arrive(barrier);
}

}  // namespace attnmux::ffa_sm90
