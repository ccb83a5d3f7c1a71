#include "attnmux/attention_bench.h"

#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "attnmux/device.h"
#include "attnmux/error.h"
#include "call_checks.h"
#include "memory_peak.h"
#include "scalar_type.h"

namespace attnmux {
namespace {

constexpr int64_t kSeed = 2622;  // fixed: two runs see the same numbers

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

struct Inputs {
  at::Tensor q, k, v, dout;
};

Inputs random_inputs(const AttentionBenchOptions& options) {
  at::manual_seed(kSeed);
  const auto normal = [&](int64_t tokens, int64_t heads) {
    return at::randn({tokens, heads, options.head_dim}, at::device(options.device).dtype(at::kFloat))
        .to(scalar_type(options.dtype));
  };
  return {normal(options.mask.total_q(), options.heads_q), normal(options.mask.total_k(), options.heads_kv),
          normal(options.mask.total_k(), options.heads_kv), normal(options.mask.total_q(), options.heads_q)};
}

// One backend that takes the request, ready to run.
class Contender {
 public:
  Contender(std::shared_ptr<const AttentionBackend> backend, const AttentionBenchOptions& options, const Inputs& inputs)
      : backend_(std::move(backend)),
        inputs_(inputs),
        scale_(1.0 / std::sqrt(static_cast<double>(options.head_dim))),
        prepared_(backend_->prepare(options.mask, shape_of(inputs.q, inputs.k, inputs.v))) {
    result_ = forward();
    check_forward_result(result_, inputs_.q, inputs_.v, call_prefix("", backend_->info().id));
  }

  ForwardResult forward() const { return backend_->forward(*prepared_, {inputs_.q, inputs_.k, inputs_.v, scale_}); }
  BackwardResult backward() const {
    return backend_->backward(*prepared_,
                              {inputs_.dout, inputs_.q, inputs_.k, inputs_.v, result_.out, result_.lse, scale_});
  }

 private:
  std::shared_ptr<const AttentionBackend> backend_;
  const Inputs& inputs_;
  double scale_;
  std::shared_ptr<const Prepared> prepared_;
  ForwardResult result_;
};

struct CallTime {
  double ms = 0;
  double host_ms = 0;  // until the call returned
};

double since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

class Stopwatch {
 public:
  explicit Stopwatch(const at::Device& device) : device_(device) {
    constexpr int64_t kBytes = int64_t{512} << 20;  // of no GPU's cache, and some 0.1 ms to write
    if (device.is_cuda()) cold_ = at::empty({kBytes}, at::device(device).dtype(at::kByte));
  }

  template <class Work>
  CallTime time(const Work& work) {
    return device_.is_cuda() ? on_gpu(work) : on_cpu(work);
  }

 private:
  template <class Work>
  static CallTime on_cpu(const Work& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const double ms = since(start);
    return {.ms = ms, .host_ms = ms};
  }

  template <class Work>
  CallTime on_gpu(const Work& work) {
    c10::Event before(device_.type(), c10::EventFlag::BACKEND_DEFAULT);
    c10::Event after(device_.type(), c10::EventFlag::BACKEND_DEFAULT);
    const c10::Stream stream = c10::impl::VirtualGuardImpl(device_.type()).getStream(device_);
    synchronize(device_);
    cold_.zero_();
    before.record(stream);
    const auto start = std::chrono::steady_clock::now();
    work();
    const double host_ms = since(start);
    after.record(stream);
    after.synchronize();
    return {.ms = before.elapsedTime(after), .host_ms = host_ms};
  }

  at::Device device_;
  at::Tensor cold_;
};

void check(const AttentionBenchOptions& options) {
  const auto fail = [](const std::string& text) { throw Error(ErrorCode::kInvalidArgument, "bench: " + text); };
  if (options.backends.empty()) fail("no backend is named");
  if (options.heads_kv < 1 || options.heads_q < 1 || options.heads_q % options.heads_kv != 0) {
    fail("heads " + std::to_string(options.heads_q) + ":" + std::to_string(options.heads_kv) +
         ": both must be at least 1, the first a multiple of the second");
  }
  if (options.head_dim < 1) fail("head_dim must be at least 1, got " + std::to_string(options.head_dim));
  if (options.repetitions < 1) fail("repetitions must be at least 1, got " + std::to_string(options.repetitions));
}

}  // namespace

std::vector<AttentionBenchRow> bench_attention(const AttentionBenchOptions& options, const PluginRegistry& registry) {
  check(options);
  const c10::NoGradGuard no_grad;
  const Inputs inputs = random_inputs(options);
  AttentionRequest request = request_for(options.mask, inputs.q, inputs.k, inputs.v, {});
  request.training = options.backward;

  std::vector<AttentionBenchRow> rows;
  std::vector<std::optional<Contender>> contenders;  // one per backend
  for (const std::string& id : options.backends) {
    const std::shared_ptr<const AttentionBackend> backend = registry.at(id);
    Support support = backend->query(request);
    for (const char* pass : {"fwd", "bwd"}) {
      if (options.backward || pass == std::string("fwd")) {
        rows.push_back({.backend = id, .pass = pass, .refusals = support.reasons});
      }
    }
    contenders.emplace_back();
    if (support.ok()) contenders.back().emplace(backend, options, inputs);
  }

  const size_t passes = options.backward ? 2 : 1;
  std::vector<std::vector<double>> times(rows.size()), host_times(rows.size());  // by row and round
  Stopwatch stopwatch(options.device);
  for (int64_t round = -1; round < options.repetitions; ++round) {
    for (size_t row = 0; row < rows.size(); ++row) {
      const std::optional<Contender>& contender = contenders[row / passes];
      if (!contender) continue;
      const auto work = [&] { row % passes == 0 ? void(contender->forward()) : void(contender->backward()); };
      if (round < 0) {
        rows[row].extra_bytes = peak_extra_bytes(options.device, work);  // also warms up
      } else {
        const CallTime time = stopwatch.time(work);
        times[row].push_back(time.ms);
        host_times[row].push_back(time.host_ms);
      }
    }
  }

  for (size_t row = 0; row < rows.size(); ++row) {
    if (times[row].empty()) continue;
    const double flops = 4.0 * static_cast<double>(options.mask.area()) * static_cast<double>(options.heads_q) *
                         static_cast<double>(options.head_dim) * (row % passes == 0 ? 1.0 : 2.5);
    rows[row].ms = median(times[row]);
    rows[row].ms_min = *std::min_element(times[row].begin(), times[row].end());
    if (options.device.is_cuda()) rows[row].host_ms = median(host_times[row]);
    rows[row].tflops = flops / (rows[row].ms * 1e9);
    const std::vector<double>& first = times[row % passes];
    if (first.empty()) continue;
    std::vector<double> ratios;
    for (size_t round = 0; round < first.size(); ++round) ratios.push_back(first[round] / times[row][round]);
    rows[row].ratio_to_first = median(ratios);
  }
  return rows;
}

}  // namespace attnmux
