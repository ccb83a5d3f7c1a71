// How fast `magi` is on this machine's CPU, as ratios measured in one process with interleaved repetitions.
//
//   cmake --preset cpu-release && ninja -C build attention_cpu_bench
//   OMP_NUM_THREADS=2 build/bench/attention_cpu_bench [flash] [masks] [memory]     (no argument: all three)
//
// flash: causal at 8k tokens against ATen's fused CPU kernel, forward and backward; ATen gets contiguous tensors in its
// own layout and, for grouped heads, keys and values repeated beforehand. Bars: fp32 >= 1.0x both ways, bf16 backward
// >= 4x (met with AMX, and with AVX2 alone; 1.7 to 2.1x on Zen 4, two cores, where ATen has bf16 dot products, too).
// masks: time per attended pair relative to causal. Bar: <= 1.3. memory: peak bytes of tensors that forward and
// backward allocate beyond their inputs, the tile plan included, per token. Bar: no growth. Medians; time in seconds.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "attnmux/mask_builders.h"
#include "attnmux/tile_plan.h"
#include "tiled_cpu/magi_backend.h"

namespace attnmux {
namespace {

constexpr int64_t kTokens = 8192;

struct HeadShape {
  int64_t q = 9;
  int64_t kv = 9;
  int64_t dim = 64;
  std::string name() const { return std::to_string(q) + ":" + std::to_string(kv) + " heads, d " + std::to_string(dim); }
};

struct Tensors {
  at::Tensor q, k, v, dout;
};

Tensors make_tensors(int64_t tokens, const HeadShape& heads, at::ScalarType dtype) {
  const auto tensor = [&](int64_t h) { return at::randn({tokens, h, heads.dim}).to(dtype); };
  return {.q = tensor(heads.q), .k = tensor(heads.kv), .v = tensor(heads.kv), .dout = tensor(heads.q)};
}

// One mask prepared for one set of tensors; forward() before backward().
class MagiCall {
 public:
  MagiCall(const AttnMaskSpec& mask, const Tensors& tensors)
      : backend_(make_magi_backend()), tensors_(tensors), scale_(1 / std::sqrt(double(tensors.q.size(2)))) {
    prepared_ = backend_->prepare(
        mask, {.heads_q = tensors.q.size(1),
               .heads_kv = tensors.k.size(1),
               .head_dim = tensors.q.size(2),
               .head_dim_v = tensors.v.size(2),
               .dtype = tensors.q.scalar_type() == at::kBFloat16 ? DType::kBFloat16 : DType::kFloat32});
  }
  void forward() {
    const auto& [q, k, v, dout] = tensors_;
    result_ = backend_->forward(*prepared_, {.q = q, .k = k, .v = v, .softmax_scale = scale_});
  }
  BackwardResult backward() const {
    const auto& [q, k, v, dout] = tensors_;
    return backend_->backward(
        *prepared_,
        {.dout = dout, .q = q, .k = k, .v = v, .out = result_.out, .lse = result_.lse, .softmax_scale = scale_});
  }

 private:
  std::shared_ptr<const AttentionBackend> backend_;
  Tensors tensors_;
  double scale_;
  std::shared_ptr<const Prepared> prepared_;
  ForwardResult result_;
};

class AtenCall {
 public:
  explicit AtenCall(const Tensors& t) {
    const int64_t group = t.q.size(1) / t.k.size(1);
    const auto own_layout = [](const at::Tensor& x) { return x.transpose(0, 1).unsqueeze(0).contiguous(); };
    q_ = own_layout(t.q);
    k_ = own_layout(t.k.repeat_interleave(group, 1));
    v_ = own_layout(t.v.repeat_interleave(group, 1));
    dout_ = own_layout(t.dout);
  }
  void forward() {
    std::tie(out_, lse_) = at::_scaled_dot_product_flash_attention_for_cpu(q_, k_, v_, 0.0, /*is_causal=*/true);
  }
  void backward() const {
    at::_scaled_dot_product_flash_attention_for_cpu_backward(dout_, q_, k_, v_, out_, lse_, 0.0, /*is_causal=*/true);
  }

 private:
  at::Tensor q_, k_, v_, dout_, out_, lse_;
};

double seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Times of each piece of work, taken in turns.
std::vector<double> interleaved(const std::vector<std::function<void()>>& work, int repetitions) {
  std::vector<std::vector<double>> times(work.size());
  for (int r = 0; r < repetitions; ++r) {
    for (size_t i = 0; i < work.size(); ++i) times[i].push_back(seconds(work[i]));
  }
  std::vector<double> medians;
  for (const auto& t : times) medians.push_back(median(t));
  return medians;
}

void bench_flash() {
  std::printf("causal, %lld tokens, against ATen's fused CPU kernel\n", static_cast<long long>(kTokens));
  std::printf("%-20s %-5s %-8s %9s %9s %13s %13s %7s\n", "heads", "dtype", "pass", "ATen s", "magi s", "ATen GFLOP/s",
              "magi GFLOP/s", "ratio");
  const AttnMaskSpec mask = causal_mask(kTokens, kTokens);
  for (const HeadShape& heads : {HeadShape{9, 9, 64}, HeadShape{32, 8, 128}}) {
    for (at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const Tensors tensors = make_tensors(kTokens, heads, dtype);
      AtenCall aten(tensors);
      MagiCall magi(mask, tensors);
      const auto times = interleaved(
          {[&] { aten.forward(); }, [&] { magi.forward(); }, [&] { aten.backward(); }, [&] { magi.backward(); }}, 3);
      const double gflop = 4e-9 * static_cast<double>(mask.area() * heads.q * heads.dim);
      const auto line = [&](const char* pass, double flop, double aten_s, double magi_s) {
        std::printf("%-20s %-5s %-8s %9.3f %9.3f %13.0f %13.0f %6.2fx\n", heads.name().c_str(),
                    dtype == at::kFloat ? "fp32" : "bf16", pass, aten_s, magi_s, flop / aten_s, flop / magi_s,
                    aten_s / magi_s);
        std::fflush(stdout);
      };
      line("forward", gflop, times[0], times[1]);
      line("backward", 2.5 * gflop, times[2], times[3]);
    }
  }
}

struct NamedMask {
  std::string name;
  AttnMaskSpec mask;
};

std::vector<NamedMask> bench_masks_8k() {
  std::vector<int64_t> nodes = {2048};  // one prompt, 16 answers
  std::vector<std::vector<int64_t>> paths;
  for (int64_t i = 1; i <= 16; ++i) {
    nodes.push_back((kTokens - 2048) / 16);
    paths.push_back({0, i});
  }
  return {{"causal", causal_mask(kTokens, kTokens)},
          {"varlen (300 to 1700)", varlen_mask({700, 1300, 300, 1700, 900, 450, 1250, 592, 1000}, MaskType::kCausal)},
          {"window 512", sliding_window_mask({kTokens}, {.left = 511, .right = 0})},
          {"prefix tree 1 -> 16", prefix_tree(nodes, paths).mask},
          {"block-causal 512", block_causal_mask(std::vector<int64_t>(16, 512))}};
}

void bench_masks() {
  std::printf("time per attended pair and head, relative to causal, %lld tokens, fp32\n",
              static_cast<long long>(kTokens));
  std::printf("%-20s %-22s %12s %11s %9s %11s %9s\n", "heads", "mask", "pairs", "forward ns", "relative", "backward ns",
              "relative");
  for (const HeadShape& heads : {HeadShape{9, 9, 64}, HeadShape{32, 8, 128}}) {
    const Tensors tensors = make_tensors(kTokens, heads, at::kFloat);
    const std::vector<NamedMask> masks = bench_masks_8k();
    std::vector<MagiCall> calls;
    for (const NamedMask& m : masks) calls.emplace_back(m.mask, tensors);
    std::vector<std::function<void()>> work;
    for (MagiCall& call : calls) {
      work.push_back([&call] { call.forward(); });
      work.push_back([&call] { call.backward(); });
    }
    const std::vector<double> times = interleaved(work, 7);
    const auto per_pair = [&](size_t mask, size_t pass) {
      return 1e9 * times[2 * mask + pass] / static_cast<double>(masks[mask].mask.area() * heads.q);
    };
    for (size_t i = 0; i < masks.size(); ++i) {
      std::printf("%-20s %-22s %12lld %11.3f %9.2f %11.3f %9.2f\n", heads.name().c_str(), masks[i].name.c_str(),
                  static_cast<long long>(masks[i].mask.area()), per_pair(i, 0), per_pair(i, 0) / per_pair(0, 0),
                  per_pair(i, 1), per_pair(i, 1) / per_pair(0, 1));
    }
    std::fflush(stdout);
  }
}

// Bytes of CPU tensors that this thread holds, and their peak, while it is installed.
class TensorBytes final : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device) override {
    now_ += size;
    peak_ = std::max(peak_, now_);
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t peak() const { return peak_; }

 private:
  int64_t now_ = 0;
  int64_t peak_ = 0;
};

int64_t bytes_of(const TilePlan& plan) {
  return static_cast<int64_t>(plan.run_offsets.size() * sizeof(int32_t) + plan.run_list.size() * sizeof(TileRun) +
                              plan.masks.intervals.size() * sizeof(RowInterval) +
                              plan.masks.bits.size() * sizeof(uint64_t));
}

void bench_memory() {
  std::printf("extra memory of forward and backward beyond inputs, window 512, 9:9 heads, d 64, fp32\n");
  std::printf("%9s %14s %12s %12s\n", "tokens", "tensor bytes", "plan bytes", "bytes/token");
  for (int64_t tokens = 4096; tokens <= 65536; tokens *= 2) {
    const AttnMaskSpec mask = sliding_window_mask({tokens}, {.left = 511, .right = 0});
    const Tensors tensors = make_tensors(tokens, {9, 9, 64}, at::kFloat);
    const auto bytes = std::make_shared<TensorBytes>();
    {
      const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, bytes);
      MagiCall call(mask, tensors);
      call.forward();
      call.backward();
    }
    const int64_t plan = bytes_of(make_tile_plan(mask, {.q = 128, .k = 128}));
    std::printf("%9lld %14lld %12lld %12.1f\n", static_cast<long long>(tokens), static_cast<long long>(bytes->peak()),
                static_cast<long long>(plan), static_cast<double>(bytes->peak() + plan) / static_cast<double>(tokens));
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace attnmux

int main(int argc, char** argv) {
  std::set<std::string> sections(argv + 1, argv + argc);
  if (sections.empty()) sections = {"flash", "masks", "memory"};
  for (const std::string& section : sections) {
    if (section != "flash" && section != "masks" && section != "memory") {
      std::fprintf(stderr, "unknown section '%s'; known are flash, masks, memory\n", section.c_str());
      return 2;
    }
  }
  at::manual_seed(0);
  std::printf("%d threads, ATen %s\n", at::get_num_threads(), at::get_cpu_capability().c_str());
  if (sections.contains("flash")) attnmux::bench_flash();
  if (sections.contains("masks")) attnmux::bench_masks();
  if (sections.contains("memory")) attnmux::bench_memory();
  return 0;
}
