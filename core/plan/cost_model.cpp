#include "attnmux/cost_model.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "../mask/json_reader.h"
#include "attnmux/error.h"

namespace attnmux {
namespace {

int64_t bytes_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat64: return 8;
    case DType::kFloat32: return 4;
    case DType::kBFloat16:
    case DType::kFloat16: return 2;
  }
  return 0;
}

constexpr double kBackwardOperations = 2.5;  // five matrix products where forward has two
constexpr double kWorthAStage = 0.99;        // of the step with half as many stages
constexpr double kBackwardTokens = 2;        // keys and values once more, and their gradients

double pass_s(const std::vector<TimelineSpan>& spans) {
  double end = 0;
  for (const TimelineSpan& span : spans) end = std::max(end, span.end_s);
  return end;
}

double computed_s(const std::vector<TimelineSpan>& spans) {
  double sum = 0;
  for (const TimelineSpan& span : spans) sum += span.exchange ? 0 : span.end_s - span.begin_s;
  return sum;
}

}  // namespace

int64_t AttentionSize::bytes_per_token() const { return 2 * heads_kv * head_dim * bytes_of(dtype); }

double CostModel::calc_s(int64_t area, const AttentionSize& shape, Pass pass) const {
  const double operations =
      4.0 * static_cast<double>(area) * static_cast<double>(shape.heads_q) * static_cast<double>(shape.head_dim);
  return operations * (pass == Pass::kBackward ? kBackwardOperations : 1) / flops_per_s;
}

double CostModel::comm_s(int64_t tokens, const AttentionSize& shape, Pass pass) const {
  if (tokens == 0) return 0;
  const double bytes = static_cast<double>(tokens) * static_cast<double>(shape.bytes_per_token());
  return latency_s + bytes * (pass == Pass::kBackward ? kBackwardTokens : 1) / bytes_per_s;
}

CostModel cost_model_from_json(std::string_view json) {
  const nlohmann::json document = parse_json(json);
  const JsonReader reader(document, "calibration");
  reader.check_keys({"flops_per_s", "bytes_per_s", "latency_s", "source"});
  const auto positive = [&](const std::string& key) {
    const double value = reader.at(key).number();
    if (!(value > 0)) reader.at(key).refuse("is " + std::to_string(value) + "; a number above 0 is expected");
    return value;
  };
  return {.flops_per_s = positive("flops_per_s"),
          .bytes_per_s = positive("bytes_per_s"),
          .latency_s = positive("latency_s"),
          .source = reader.at("source").string()};
}

std::string to_json(const CostModel& model) {
  return nlohmann::ordered_json{{"flops_per_s", model.flops_per_s},
                                {"bytes_per_s", model.bytes_per_s},
                                {"latency_s", model.latency_s},
                                {"source", model.source}}
      .dump(/*indent=*/2);
}

// An exchange starts together with the attention that it is to hide behind, and both end before the next pair starts.
std::vector<TimelineSpan> timeline(const RankWork& work, const CostModel& model, const AttentionSize& shape,
                                   Pass pass) {
  std::vector<TimelineSpan> spans;
  double now = 0;
  int64_t area = work.host_area;
  for (int64_t stage = 0; stage <= std::ssize(work.stages); ++stage) {
    const double calc = model.calc_s(area, shape, pass);
    spans.push_back({.stage = stage - 1, .exchange = false, .begin_s = now, .end_s = now + calc});
    double comm = 0;
    if (stage < std::ssize(work.stages)) {
      const StageWork& next = work.stages[stage];
      comm = model.comm_s(std::max(next.tokens_received, next.tokens_sent), shape, pass);
      spans.push_back({.stage = stage, .exchange = true, .begin_s = now, .end_s = now + comm});
      area = next.area;
    }
    now += std::max(calc, comm);
  }
  return spans;
}

Prediction predict(const DistAttnPlan& plan, const CostModel& model, const AttentionSize& shape) {
  Prediction prediction;
  const std::vector<RankWork> work = plan.work();
  for (size_t rank = 0; rank < work.size(); ++rank) {
    double step = 0, computed = 0;
    for (const Pass pass : {Pass::kForward, Pass::kBackward}) {
      const std::vector<TimelineSpan> spans = timeline(work[rank], model, shape, pass);
      step += pass_s(spans);
      computed += computed_s(spans);
    }
    if (step <= prediction.step_s) continue;
    prediction.step_s = step;
    prediction.exposed_s = step - computed;
    prediction.slowest_rank = static_cast<int32_t>(rank);
  }
  const int64_t area = plan.mask().area();
  prediction.one_rank_s = model.calc_s(area, shape, Pass::kForward) + model.calc_s(area, shape, Pass::kBackward);
  prediction.speedup = prediction.step_s > 0 ? prediction.one_rank_s / prediction.step_s : 1;
  prediction.efficiency = prediction.speedup / static_cast<double>(work.size());
  return prediction;
}

int64_t choose_stages(const AttnMaskSpec& mask, const DispatchOptions& dispatch, const CostModel& model,
                      const AttentionSize& shape) {
  int64_t chosen = 1;
  double shortest = 0;
  for (const int64_t stages : {1, 2, 4, 8, 16, 32}) {
    const DistAttnPlan plan(mask, dispatch, {.stages = stages});
    if (plan.stages() == 0) return 1;
    const double step = predict(plan, model, shape).step_s;
    if (stages > 1 && step > kWorthAStage * shortest) break;
    shortest = step;
    chosen = stages;
  }
  return chosen;
}

}  // namespace attnmux
