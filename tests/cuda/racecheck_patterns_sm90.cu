// The three ways in which the Hopper kernels pass shared memory from warp to warp, each in its smallest form and right
// by the PTX memory model. compute-sanitizer's racecheck (2025.3) does not follow mbarriers written in PTX and reports
// all three: see tests/cuda/sanitize, which runs this first and takes from it which reports mean nothing.
//
// Exit status 0 where every value arrived.
#include <cuda_runtime_api.h>

#include <cstdio>

#include "ffa_sm90/ring.cuh"

namespace attnmux::ffa_sm90 {

constexpr int kRounds = 16;
constexpr uint32_t kBytes = 128;  // one int a lane

struct Barriers {
  uint32_t full, empty;
};

// Two pairs of barriers, one arrival each.
__device__ Barriers make_barriers(uint64_t (&storage)[4]) {
  const Barriers barriers = {smem_address(&storage[0]), smem_address(&storage[2])};
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2; ++i) {
      mbarrier_init(barriers.full + 8 * i, 1);
      mbarrier_init(barriers.empty + 8 * i, 1);
    }
    fence_barrier_init();
  }
  __syncthreads();
  return barriers;
}

// As lse, row sums and masks reach the warps that compute: the copy engine writes, its bytes complete an mbarrier.
__global__ void bulk_copy_pattern(const int* in, int* out) {
  __shared__ alignas(16) int slots[2][32];
  __shared__ uint64_t storage[4];
  const Barriers barriers = make_barriers(storage);
  Ring ring;
  for (int round = 0; round < kRounds; ++round) {
    const uint32_t full = barriers.full + 8 * ring.slot, empty = barriers.empty + 8 * ring.slot;
    if (threadIdx.x < 32) {
      mbarrier_wait(empty, ring.phase ^ 1);
      if (threadIdx.x == 0) {
        mbarrier_arrive_expect_tx(full, kBytes);
        bulk_load(smem_address(slots[ring.slot]), in + round * 32, kBytes, full);
      }
    } else {
      mbarrier_wait(full, ring.phase);
      out[round * 32 + threadIdx.x % 32] = slots[ring.slot][threadIdx.x % 32];
      warp_arrive(empty);
    }
    ring.advance();
  }
}

// As an item's header reaches them: one thread writes, then arrives.
__global__ void message_pattern(const int* in, int* out) {
  __shared__ int slots[2];
  __shared__ uint64_t storage[4];
  const Barriers barriers = make_barriers(storage);
  Ring ring;
  for (int round = 0; round < kRounds; ++round) {
    const uint32_t full = barriers.full + 8 * ring.slot, empty = barriers.empty + 8 * ring.slot;
    if (threadIdx.x < 32) {
      mbarrier_wait(empty, ring.phase ^ 1);
      if (threadIdx.x == 0) {
        slots[ring.slot] = in[round * 32];
        mbarrier_arrive(full);
      }
    } else {
      mbarrier_wait(full, ring.phase);
      out[round * 32 + threadIdx.x % 32] = slots[ring.slot];
      warp_arrive(empty);
    }
    ring.advance();
  }
}

// As the place of dQ reaches the warp that sends it: through a third warp, which has it from an mbarrier and hands it
// on by a named barrier.
__global__ void relay_pattern(const int* in, int* out) {
  __shared__ int slots[4];
  __shared__ uint64_t storage[4];
  const Barriers barriers = make_barriers(storage);
  Ring ring;
  const int warp = threadIdx.x / 32;
  if (warp == 2) named_barrier_arrive(2, 64);
  for (int round = 0; round < kRounds; ++round) {
    const uint32_t full = barriers.full + 8 * ring.slot, empty = barriers.empty + 8 * ring.slot;
    if (warp == 0) {
      mbarrier_wait(empty, ring.phase ^ 1);
      if (threadIdx.x == 0) {
        slots[round % 4] = in[round * 32];
        mbarrier_arrive(full);
      }
    } else if (warp == 1) {
      mbarrier_wait(full, ring.phase);
      named_barrier_sync(2, 64);
      named_barrier_arrive(1, 64);
      warp_arrive(empty);
    } else {
      named_barrier_sync(1, 64);
      out[round * 32 + threadIdx.x % 32] = slots[round % 4];
      __syncwarp();
      named_barrier_arrive(2, 64);
    }
    ring.advance();
  }
}

bool arrived(const char* name, void (*pattern)(const int*, int*), int threads, const int* in, int* out) {
  int got[kRounds * 32];
  cudaMemset(out, 0xFF, sizeof got);
  pattern<<<1, threads>>>(in, out);
  if (cudaMemcpy(got, out, sizeof got, cudaMemcpyDeviceToHost) != cudaSuccess) {
    std::printf("%s: %s\n", name, cudaGetErrorString(cudaGetLastError()));
    return false;
  }
  for (int i = 0; i < kRounds * 32; ++i) {
    if (got[i] != i / 32 + 1) {
      std::printf("%s: element %d is %d, expected %d\n", name, i, got[i], i / 32 + 1);
      return false;
    }
  }
  return true;
}

}  // namespace attnmux::ffa_sm90

int main() {
  using namespace attnmux::ffa_sm90;
  int values[kRounds * 32], *in = nullptr, *out = nullptr;
  for (int i = 0; i < kRounds * 32; ++i) values[i] = i / 32 + 1;
  if (cudaMalloc(&in, sizeof values) != cudaSuccess || cudaMalloc(&out, sizeof values) != cudaSuccess) {
    std::printf("no GPU: %s\n", cudaGetErrorString(cudaGetLastError()));
    return 77;
  }
  cudaMemcpy(in, values, sizeof values, cudaMemcpyHostToDevice);
  const bool bulk = arrived("bulk copy", bulk_copy_pattern, 64, in, out);
  const bool message = arrived("message", message_pattern, 64, in, out);
  const bool relay = arrived("relay", relay_pattern, 96, in, out);
  return bulk && message && relay ? 0 : 1;
}
