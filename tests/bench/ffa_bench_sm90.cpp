// What the Hopper kernels reach on this machine's GPU, and what a call costs the host.
//
//   ninja -C build ffa_bench_sm90 && build/bench/ffa_bench_sm90 [tokens...]      (default: 1024 8192 32768)
//
// bf16, random normal data, one sequence. GPU time: events around each of 20 calls, median; FLOPs = 4 * attended pairs
// * heads_q * head_dim forward, 2.5 times that backward. Host time: wall time of a call that enqueues, the GPU being
// left behind, median of 5 times 50 calls. Time to prepare a mask: plans, upload, synchronisation. Peers are measured
// elsewhere.
#include <ATen/ATen.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "attnmux/device.h"
#include "attnmux/mask_builders.h"
#include "ffa_sm90/ffa_backend.h"

namespace attnmux {
namespace {

struct NamedMask {
  std::string name;
  AttnMaskSpec mask;
};

std::vector<NamedMask> masks_of(int64_t tokens) {
  std::vector<int64_t> nodes = {tokens / 4}, documents, blocks(16, tokens / 16);
  std::vector<std::vector<int64_t>> paths;
  for (int64_t i = 1; i <= 16; ++i) {
    nodes.push_back((tokens - tokens / 4) / 16);
    paths.push_back({0, i});
  }
  // Lengths from a twelfth to twice a twelfth of one another.
  int64_t left = tokens;
  for (int64_t i = 0; left > 0; ++i) {
    documents.push_back(std::min(left, std::max<int64_t>(1, tokens * (1 + i * 7 % 12) / 120)));
    left -= documents.back();
  }
  return {{"full", full_mask(tokens, tokens)},
          {"causal", causal_mask(tokens, tokens)},
          {"varlen causal", varlen_mask(documents, MaskType::kCausal)},
          {"varlen full", varlen_mask(documents, MaskType::kFull)},
          {"window 1024", sliding_window_mask({tokens}, {.left = 1023, .right = 0})},
          {"prefix tree", prefix_tree(nodes, paths).mask},
          {"block causal", block_causal_mask(blocks)}};
}

void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
  std::exit(1);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double gpu_seconds(const std::function<void()>& work) {
  constexpr int kWarm = 3, kTimed = 20;
  std::vector<std::pair<cudaEvent_t, cudaEvent_t>> events(kTimed);
  for (int i = -kWarm; i < kTimed; ++i) {
    if (i >= 0) {
      check(cudaEventCreate(&events[i].first));
      check(cudaEventCreate(&events[i].second));
      check(cudaEventRecord(events[i].first));
    }
    work();
    if (i >= 0) check(cudaEventRecord(events[i].second));
  }
  check(cudaDeviceSynchronize());
  std::vector<double> times;
  for (const auto& [start, end] : events) {
    float ms = 0;
    check(cudaEventElapsedTime(&ms, start, end));
    times.push_back(ms * 1e-3);
    check(cudaEventDestroy(start));
    check(cudaEventDestroy(end));
  }
  return median(times);
}

double host_seconds(const std::function<void()>& work) {
  constexpr int kCalls = 50;
  std::vector<double> times;
  for (int i = 0; i < 5; ++i) {
    check(cudaDeviceSynchronize());
    times.push_back(seconds([&] {
                      for (int call = 0; call < kCalls; ++call) work();
                    }) /
                    kCalls);
  }
  check(cudaDeviceSynchronize());
  return median(times);
}

void bench(int64_t tokens, int64_t heads_q, int64_t heads_kv, int64_t head_dim) {
  const auto options = at::device(at::kCUDA).dtype(at::kBFloat16);
  const at::Tensor q = at::randn({tokens, heads_q, head_dim}, options), dout = at::randn_like(q);
  const at::Tensor k = at::randn({tokens, heads_kv, head_dim}, options), v = at::randn_like(k);
  const double scale = 1 / std::sqrt(static_cast<double>(head_dim));
  const auto backend = ffa_sm90::make_backend();
  for (const auto& [name, mask] : masks_of(tokens)) {
    std::shared_ptr<const Prepared> prepared;
    const double prepare = seconds([&] {
      prepared = backend->prepare(mask, {.heads_q = heads_q,
                                         .heads_kv = heads_kv,
                                         .head_dim = head_dim,
                                         .head_dim_v = head_dim,
                                         .dtype = DType::kBFloat16,
                                         .device = DeviceKind::kCuda});
    });
    const auto forward = [&] { return backend->forward(*prepared, {q, k, v, scale}); };
    const ForwardResult result = forward();
    const auto backward = [&](bool deterministic) {
      backend->backward(*prepared, {dout, q, k, v, result.out, result.lse, scale, deterministic});
    };
    const double pairs = static_cast<double>(mask.area() * heads_q);
    const double tflop = 4e-12 * pairs * static_cast<double>(head_dim);
    std::printf("%7lld %3lld:%-3lld %4lld  %-14s %8.0f %8.0f %8.0f %9.1f %9.1f %9.2f\n", static_cast<long long>(tokens),
                static_cast<long long>(heads_q), static_cast<long long>(heads_kv), static_cast<long long>(head_dim),
                name.c_str(), tflop / gpu_seconds(forward),
                2.5 * tflop / gpu_seconds([&] { backward(/*deterministic=*/false); }),
                2.5 * tflop / gpu_seconds([&] { backward(/*deterministic=*/true); }), 1e6 * host_seconds(forward),
                1e6 * host_seconds([&] { backward(/*deterministic=*/false); }), 1e3 * prepare);
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace attnmux

int main(int argc, char** argv) {
  std::vector<int64_t> lengths;
  for (int i = 1; i < argc; ++i) lengths.push_back(std::strtoll(argv[i], nullptr, 10));
  if (lengths.empty()) lengths = {1024, 8192, 32768};
  attnmux::open_device("cuda");
  at::manual_seed(0);
  cudaDeviceProp properties;
  attnmux::check(cudaGetDeviceProperties(&properties, 0));
  std::printf("%s, %d multiprocessors, bf16\n", properties.name, properties.multiProcessorCount);
  std::printf("%7s %7s %4s  %-14s %8s %8s %8s %9s %9s %9s\n", "", "", "head", "", "TFLOP/s", "", "determ.", "host us",
              "", "prepare");
  std::printf("%7s %7s %4s  %-14s %8s %8s %8s %9s %9s %9s\n", "tokens", "heads", "dim", "mask", "forward", "backward",
              "backward", "forward", "backward", "ms");
  for (const int64_t tokens : lengths) {
    for (const int64_t head_dim : {128, 64}) {
      attnmux::bench(tokens, 16, 16, head_dim);
      attnmux::bench(tokens, 32, 8, head_dim);
    }
  }
  return 0;
}
