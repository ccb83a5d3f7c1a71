// Attention throughput of several backends on one mask, measured in one process, call by call in turns, so that a busy
// machine slows all of them alike.
//
//   std::vector<AttentionBenchRow> rows = bench_attention({.mask = mask, .backends = {"magi", "sdpa"}}, registry);
//
// Random normal q, k, v. On a GPU a call's time is between two events around it, behind a write of memory larger than
// the second-level cache: inputs come from memory, and the host enqueues the call meanwhile, so that its own time is
// apart, in host_ms. FLOPs = 4 * area * heads_q * head_dim forward, 2.5 times that backward. Runs on the calling thread
// and whatever threads the backends use; allocates the tensors it needs.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "attnmux/export.h"
#include "attnmux/mask.h"
#include "attnmux/registry.h"

namespace attnmux {

struct AttentionBenchOptions {
  AttnMaskSpec mask;
  std::vector<std::string> backends;  // ids; the first is what the others are compared with
  int64_t heads_q = 32;
  int64_t heads_kv = 8;
  int64_t head_dim = 128;
  DType dtype = DType::kBFloat16;
  at::Device device = at::kCPU;
  bool backward = false;
  int64_t repetitions = 20;  // timed rounds, after one that is not
};

struct AttentionBenchRow {
  std::string backend;
  std::string pass;              // "fwd" or "bwd"
  std::vector<Reason> refusals;  // not empty: the backend declined, and nothing below was measured
  double ms = 0;                 // median
  double ms_min = 0;
  std::optional<double> host_ms;  // GPU: median of the time until the call returned to the host
  double tflops = 0;              // by the median
  // Speed against the first backend, the median over rounds of (its time / this one's); above 1 is faster than it.
  // Nothing where the first declined.
  std::optional<double> ratio_to_first;
  // Peak of memory during one call beyond what was held before it, its results included. CPU: of the whole process,
  // nothing where the system does not tell.
  std::optional<int64_t> extra_bytes;
};

// One row per backend and pass, in the order of `backends`, forward before backward. Throws Error(kUnknownBackend),
// Error(kInvalidArgument) for options that cannot be.
ATTNMUX_API std::vector<AttentionBenchRow> bench_attention(const AttentionBenchOptions& options,
                                                           const PluginRegistry& registry);

}  // namespace attnmux
