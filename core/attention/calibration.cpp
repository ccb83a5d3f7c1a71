#include "attnmux/calibration.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <chrono>

#include "attnmux/attend.h"
#include "attnmux/cp_group.h"
#include "attnmux/error.h"
#include "attnmux/group_cast.h"
#include "scalar_type.h"

namespace attnmux {
namespace {

constexpr int64_t kSizes = 4;  // exchanges of 1/64, 1/16, 1/4 and all of the mask's keys
constexpr double kLeastLatency = 1e-7;

void check(const CalibrationOptions& options) {
  const auto fail = [](const std::string& text) { throw Error(ErrorCode::kInvalidArgument, "calibration: " + text); };
  if (options.ranks < 2) fail(std::to_string(options.ranks) + " ranks exchange nothing; at least 2 are needed");
  if (options.repetitions < 1) fail("repetitions must be at least 1, got " + std::to_string(options.repetitions));
  if (options.mask.area() == 0) fail("the mask attends nothing, so that there is no attention to measure");
}

// `tokens` of every rank go to the others in equal parts.
GroupCastArgs all_to_all(int64_t rank, int64_t ranks, int64_t tokens) {
  GroupCastArgs args;
  for (int32_t other = 0; other < ranks; ++other) {
    if (other == rank) continue;
    args.input_splits.push_back(tokens / (ranks - 1));
    args.dst.push_back({other});
    args.output_splits.push_back(tokens / (ranks - 1));
    args.src.push_back(other);
  }
  return args;
}

std::vector<int64_t> exchange_tokens(const CalibrationOptions& options) {
  std::vector<int64_t> sizes;
  for (int64_t i = kSizes; i-- > 0;) {
    const int64_t parts = options.ranks - 1;
    sizes.push_back(std::max<int64_t>((options.mask.total_k() >> (2 * i)) / parts, i == 0 ? 2 : 1) * parts);
  }
  return sizes;
}

// One rank's seconds: [measurements, repetitions].
class RankClock {
 public:
  RankClock(CpGroup& group, int64_t measurements, int64_t repetitions)
      : group_(group), repetitions_(repetitions), seconds_(at::zeros({measurements, repetitions}, at::kDouble)) {}

  template <class Run>
  void measure(int64_t measurement, Run&& run) {
    for (int64_t i = -1; i < repetitions_; ++i) {
      group_.barrier();
      const auto start = std::chrono::steady_clock::now();
      run();
      const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
      if (i >= 0) seconds_[measurement][i] = time.count();
    }
  }

  // Of the slowest rank, median over repetitions: [measurements].
  at::Tensor slowest() {
    group_.all_reduce(seconds_, ReduceOp::kMax)->wait();
    return std::get<0>(seconds_.median(/*dim=*/1));
  }

 private:
  CpGroup& group_;
  int64_t repetitions_;
  at::Tensor seconds_;
};

// seconds = latency + bytes / bandwidth, least squares of the relative errors.
void fit(const std::vector<ExchangeTime>& exchanges, double bytes_per_token, CostModel* model) {
  double w = 0, wx = 0, wxx = 0, wy = 0, wxy = 0;
  for (const ExchangeTime& exchange : exchanges) {
    const double x = static_cast<double>(exchange.tokens) * bytes_per_token;
    const double weight = 1 / (exchange.seconds * exchange.seconds);
    w += weight;
    wx += weight * x;
    wxx += weight * x * x;
    wy += weight * exchange.seconds;
    wxy += weight * x * exchange.seconds;
  }
  const double slope = (w * wxy - wx * wy) / (w * wxx - wx * wx);
  const ExchangeTime& largest = exchanges.back();
  const double bytes = static_cast<double>(largest.tokens) * bytes_per_token;
  // Where noise hides the slope, the largest exchange tells the bandwidth.
  model->bytes_per_s = slope > 0 ? 1 / slope : bytes / largest.seconds;
  model->latency_s = std::max((wy - wx / model->bytes_per_s) / w, kLeastLatency);
}

}  // namespace

Calibration calibrate(const CalibrationOptions& options, const PluginRegistry& registry) {
  check(options);
  const std::shared_ptr<const AttentionBackend> backend = registry.at(options.backend);
  const AttentionSize& size = options.size;
  const at::TensorOptions dtype(scalar_type(size.dtype));
  const std::vector<int64_t> tokens = exchange_tokens(options);
  at::Tensor seconds;
  run_threads_group(static_cast<int32_t>(options.ranks), {}, [&](CpGroup& group) {
    const c10::NoGradGuard no_grad;
    RankClock clock(group, kSizes + 1, options.repetitions);
    for (int64_t i = 0; i < kSizes; ++i) {
      const GroupCastArgs args = all_to_all(group.rank(), group.size(), tokens[i]);
      const at::Tensor keys_and_values = at::ones({tokens[i], 2 * size.heads_kv, size.head_dim}, dtype);
      clock.measure(i, [&] { group_cast(group, args, keys_and_values).wait(); });
    }
    const auto normal = [&](int64_t count, int64_t heads) {
      return at::randn({count, heads, size.head_dim}, at::kFloat).to(dtype.dtype());
    };
    const at::Tensor q = normal(options.mask.total_q(), size.heads_q);
    const at::Tensor k = normal(options.mask.total_k(), size.heads_kv);
    const at::Tensor v = normal(options.mask.total_k(), size.heads_kv);
    PreparedCache cache;
    clock.measure(kSizes, [&] { attend(backend, options.mask, q, k, v, {}, cache); });
    const at::Tensor slowest = clock.slowest();
    if (group.rank() == 0) seconds = slowest;
  });

  Calibration result;
  for (int64_t i = 0; i < kSizes; ++i) {
    result.exchanges.push_back({.tokens = tokens[i], .seconds = seconds[i].item<double>()});
  }
  result.attention_s = seconds[kSizes].item<double>();
  fit(result.exchanges, static_cast<double>(size.bytes_per_token()), &result.model);
  CostModel unit;
  unit.flops_per_s = 1;
  result.model.flops_per_s = unit.calc_s(options.mask.area(), size, Pass::kForward) / result.attention_s;
  result.model.source = "measured: " + std::to_string(options.ranks) + " threads, " + options.backend + ", heads " +
                        std::to_string(size.heads_q) + ":" + std::to_string(size.heads_kv) + " of " +
                        std::to_string(size.head_dim) + ", " + std::string(to_string(size.dtype));
  return result;
}

}  // namespace attnmux
