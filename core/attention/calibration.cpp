#include "attnmux/calibration.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "attnmux/distributed_attend.h"
#include "attnmux/error.h"
#include "attnmux/group_cast.h"
#include "attnmux/mask_builders.h"
#include "attnmux/ranges.h"
#include "attnmux/selection.h"
#include "backend_call.h"
#include "call_checks.h"
#include "distributed_call.h"
#include "lse_merge.h"
#include "rank_clock.h"
#include "remote_tokens.h"
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

// What one rank attends with, in random numbers.
struct Inputs {
  Inputs(int64_t queries, int64_t keys, const AttentionSize& size)
      : q(normal(queries, size.heads_q, size)),
        k(normal(keys, size.heads_kv, size)),
        v(normal(keys, size.heads_kv, size)),
        dout(normal(queries, size.heads_q, size)) {}

  BackwardArgs backward(const ForwardResult& result) const {
    return {.dout = dout, .q = q, .k = k, .v = v, .out = result.out, .lse = result.lse};
  }

  at::Tensor q, k, v, dout;

 private:
  static at::Tensor normal(int64_t tokens, int64_t heads, const AttentionSize& size) {
    return at::randn({tokens, heads, size.head_dim}, at::kFloat).to(scalar_type(size.dtype));
  }
};

// A mask and what is needed to attend by it.
class Call {
 public:
  Call(const BackendCall& call, const AttnMaskSpec& mask, const AttentionSize& size, PreparedCache& cache)
      : call_(call),
        in_(mask.total_q(), mask.total_k(), size),
        prepared_(call_.prepare(cache, mask, in_.q, in_.k, in_.v)) {}
  ForwardResult forward() const { return call_.forward(*prepared_, in_.q, in_.k, in_.v); }
  BackwardResult backward() {
    if (!result_.out.defined()) result_ = forward();
    return call_.backward(*prepared_, in_.backward(result_));
  }

 private:
  const BackendCall& call_;
  Inputs in_;
  std::shared_ptr<const Prepared> prepared_;
  ForwardResult result_;
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

// The rest of what is measured, behind the exchanges.
enum Measurement : int64_t {
  kForward = kSizes,
  kBackward,
  kRows,
  kBackwardRows,
  kKeys,
  kBackwardKeys,
  kOneCall,
  kBoth,
  kMeasurements
};
constexpr int64_t kFew = 16;

// Forward and backward of a plan, as two things to be measured.
void add_plan(const std::shared_ptr<const AttentionBackend>& backend, const AgreedPlan& plan, const AttentionSize& size,
              PreparedCache& cache, std::vector<std::function<void()>>* things) {
  const DispatchPlan& dispatch = plan.plan().dispatch();
  const int32_t rank = plan.group().rank();
  const auto in =
      std::make_shared<const Inputs>(dispatch.tokens_of(rank), count_tokens(dispatch.key_ranges_of(rank)), size);
  const auto call = std::make_shared<const DistributedCall>(BackendCall(backend, in->q, {}), plan, in->q, in->k, in->v,
                                                            cache, RankTrace());
  const auto result = std::make_shared<ForwardResult>();
  const auto kept = std::make_shared<std::vector<KeysAndValues>>();
  things->emplace_back([=] {
    kept->clear();
    *result = call->forward(in->q, in->k, in->v, call->keeps_remote_keys() ? kept.get() : nullptr);
  });
  things->emplace_back([=] { call->backward(in->backward(*result), *kept); });
}

}  // namespace

Calibration calibrate(const CalibrationOptions& options, const PluginRegistry& registry) {
  check(options);
  const std::shared_ptr<const AttentionBackend> backend = registry.at(options.backend);
  const AttentionSize& size = options.size;
  const std::vector<int64_t> tokens = exchange_tokens(options);
  const int64_t rows = options.mask.total_q(), keys = options.mask.total_k();
  at::Tensor seconds;
  run_threads_group(options.ranks, {}, [&](CpGroup& group) {
    const c10::NoGradGuard no_grad;
    PreparedCache cache;
    const Inputs in(1, 1, size);
    AttentionRequest request = request_for(facts_of(options.mask), in.q, in.k, in.v, {});
    request.training = true;
    require_support(*backend, request_of_parts(request), "");
    const BackendCall call(backend, in.q, {});
    std::vector<std::function<void()>> things;
    std::vector<std::function<GroupCastResult()>> casts;
    for (int64_t i = 0; i < kSizes; ++i) {
      const KeysAndValues own{at::ones({tokens[i], size.heads_kv, size.head_dim}, scalar_type(size.dtype)),
                              at::ones({tokens[i], size.heads_kv, size.head_dim}, scalar_type(size.dtype))};
      const at::Tensor packed = pack(own, own.k.scalar_type());
      casts.emplace_back([&group, packed, args = all_to_all(group.rank(), group.size(), tokens[i])] {
        return group_cast(group, args, packed);
      });
      things.emplace_back([&casts, i] { casts[i]().wait(); });
    }
    Call whole(call, options.mask, size, cache);
    Call few_keys(call, full_mask(rows, kFew), size, cache);
    Call few_rows(call, full_mask(kFew, keys), size, cache);
    Call one(call, full_mask(1, 1), size, cache);
    const ForwardResult before = few_keys.forward();
    const at::Tensor dq = few_keys.backward().dq.to(wide_dtype(before.out.scalar_type()));
    const PartRows all_rows({{0, rows}}, rows, before.out.device());
    things.emplace_back([&] { whole.forward(); });
    things.emplace_back([&] { whole.backward(); });
    things.emplace_back([&] {
      LseMerge merge(before.out, size.head_dim);
      merge.add(before, all_rows);  // written into: its numbers change from round to round, and stay numbers
      merge.add(few_keys.forward(), all_rows);
      merge.finish();
    });
    things.emplace_back([&] { dq.add_(few_keys.backward().dq); });
    things.emplace_back([&] { few_rows.forward(); });
    things.emplace_back([&] {
      const BackwardResult gradients = few_rows.backward();
      pack({gradients.dk, gradients.dv}, wide_dtype(gradients.dk.scalar_type()));
    });
    things.emplace_back([&] { one.forward(); });
    things.emplace_back([&] {
      GroupCastResult under_way = casts.back()();
      whole.forward();
      under_way.wait();
    });
    for (const DistAttnPlan& plan : options.plans) add_plan(backend, AgreedPlan(group, plan), size, cache, &things);
    RankClock clock(group);
    clock.run(things, options.repetitions);
    const at::Tensor times = clock.seconds();
    if (group.rank() == 0) seconds = times;
  });
  const auto measured = [&](int64_t i) { return seconds[i].item<double>(); };

  Calibration result;
  for (int64_t i = 0; i < kSizes; ++i) result.exchanges.push_back({.tokens = tokens[i], .seconds = measured(i)});
  CostModel& model = result.model;
  fit(result.exchanges, static_cast<double>(size.bytes_per_token()), &model);
  result.forward_s = measured(kForward);
  result.backward_s = measured(kBackward);
  model.call_s = measured(kOneCall);
  // What is left of a time once calls, rows and keys are paid for; at least a tenth, where noise would leave nothing.
  const auto left = [&](double time, double paid) { return std::max(time - paid, time / 10); };
  const CostModel unit{.flops_per_s = 1,
                       .backward_flops_per_s = 1,
                       .call_s = 0,
                       .row_bytes_per_s = 1,
                       .backward_row_bytes_per_s = 1,
                       .key_bytes_per_s = 1,
                       .backward_key_bytes_per_s = 1};
  const auto units = [&](const PartSize& part, Pass pass) {
    return unit.part_s({part.area + 1, part.rows, part.keys}, size, pass) - unit.part_s({.area = 1}, size, pass);
  };
  const double row_bytes = units({.rows = rows}, Pass::kForward), key_bytes = units({.keys = keys}, Pass::kForward);
  const double row_s = left(measured(kRows), model.call_s), key_s = left(measured(kKeys), model.call_s);
  const double backward_row_s = left(measured(kBackwardRows), model.call_s);
  const double backward_key_s = left(measured(kBackwardKeys), model.call_s);
  model.row_bytes_per_s = row_bytes / row_s;
  model.backward_row_bytes_per_s = row_bytes / backward_row_s;
  model.key_bytes_per_s = key_bytes / key_s;
  model.backward_key_bytes_per_s = key_bytes / backward_key_s;
  const auto operations = [&](Pass pass) { return units({.area = options.mask.area()}, pass); };
  model.flops_per_s = operations(Pass::kForward) / left(result.forward_s, model.call_s + row_s + key_s);
  model.backward_flops_per_s =
      operations(Pass::kBackward) / left(result.backward_s, model.call_s + backward_row_s + backward_key_s);
  const double saved = result.forward_s + result.exchanges.back().seconds - measured(kBoth);
  model.overlap = std::clamp(saved / std::min(result.forward_s, result.exchanges.back().seconds), 0.0, 1.0);
  for (int64_t i = kMeasurements; i < seconds.size(0); i += 2) {
    result.plans.push_back({.forward_s = measured(i), .backward_s = measured(i + 1)});
  }
  model.source = "measured: " + std::to_string(options.ranks) + " threads, " + options.backend + ", heads " +
                 std::to_string(size.heads_q) + ":" + std::to_string(size.heads_kv) + " of " +
                 std::to_string(size.head_dim) + ", " + std::string(to_string(size.dtype));
  return result;
}

}  // namespace attnmux
