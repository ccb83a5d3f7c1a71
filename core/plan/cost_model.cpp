#include "attnmux/cost_model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "../mask/json_reader.h"
#include "attnmux/error.h"
#include "stage_split.h"

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

constexpr double kBackwardOperations = 2.5;     // five matrix products where forward has two
constexpr double kLeast = 1e-15, kMost = 1e24;  // of a calibration's numbers, so that times are numbers, too
constexpr double kWorthStages = 1.002;          // of the shortest step
constexpr int64_t kStages[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256};
constexpr double kGrowths[] = {1, 0.5, 2, 0.25, 4};
constexpr double kMostDoublings = 16;  // from the smallest stage to the largest

// One pass of one rank, as the runtime goes through it; returns its end. Visits every span.
template <class Visit>
double walk(const RankWork& work, const CostModel& model, const AttentionSize& shape, Pass pass, Visit&& visit) {
  const std::vector<StageWork>& parts = work.of(pass);
  const int64_t stages = std::ssize(parts);
  const bool receives = pass == Pass::kForward || !work.keeps_remote_keys;
  double now = 0, link = 0;  // when attention and when the link are free
  const auto exchange = [&](int64_t stage, Cargo cargo) {
    const StageWork& part = parts[stage];
    const double begin = std::max(now, link);
    link = begin + model.exchange_s(std::max(part.tokens_received, part.tokens_sent), shape, cargo);
    visit(TimelineSpan{
        .stage = stage, .exchange = true, .gradients = cargo == Cargo::kGradients, .begin_s = begin, .end_s = link});
    return link;
  };
  const auto compute = [&](int64_t stage, const PartSize& part) {
    const double alone = model.part_s(part, shape, pass);
    const double beside = std::clamp(link - now, 0.0, alone);
    const double end = now + alone + (1 - model.overlap) * beside;
    visit(TimelineSpan{.stage = stage, .begin_s = now, .end_s = end});
    now = end;
  };
  double keys = stages > 0 && receives ? exchange(0, Cargo::kKeys) : 0;
  double gradients = 0;
  compute(-1, {.area = work.host_area, .rows = work.host_rows, .keys = work.host_keys});
  for (int64_t stage = 0; stage < stages; ++stage) {
    now = std::max(now, keys);
    if (stage + 1 < stages && receives) keys = exchange(stage + 1, Cargo::kKeys);
    compute(stage, {.area = parts[stage].area, .rows = parts[stage].rows, .keys = parts[stage].tokens_received});
    if (pass == Pass::kForward) continue;
    const double before = gradients;
    gradients = exchange(stage, Cargo::kGradients);
    now = std::max(now, before);
  }
  return std::max(now, gradients);
}

// Of a plan with one stage: what its ranks would do with other stages.
class Stages {
 public:
  Stages(std::vector<RankWork> whole, const CostModel& model, const AttentionSize& shape)
      : whole_(std::move(whole)), model_(model), shape_(shape) {}

  // Of the rank that is slowest in all of these passes together.
  double slowest_s(const StageOptions& options, const std::vector<Pass>& passes) {
    const std::vector<double> ends = ends_of_stages(options);
    double slowest = 0;
    for (const RankWork& rank : whole_) {
      staged_.host_area = rank.host_area;
      staged_.host_rows = rank.host_rows;
      staged_.host_keys = rank.host_keys;
      staged_.keeps_remote_keys = rank.keeps_remote_keys;
      staged_.stages.resize(ends.size());
      const StageWork& all = rank.stages.front();
      StageWork before;
      for (size_t stage = 0; stage < ends.size(); ++stage) {
        const auto up_to = [&](int64_t amount) { return std::llround(static_cast<double>(amount) * ends[stage]); };
        const StageWork sum{.area = up_to(all.area),
                            .tokens_received = up_to(all.tokens_received),
                            .tokens_sent = up_to(all.tokens_sent)};
        staged_.stages[stage] = {.area = sum.area - before.area,
                                 .rows = all.rows,  // at most
                                 .tokens_received = sum.tokens_received - before.tokens_received,
                                 .tokens_sent = sum.tokens_sent - before.tokens_sent};
        before = sum;
      }
      double seconds = 0;
      for (const Pass pass : passes) seconds += walk(staged_, model_, shape_, pass, [](const TimelineSpan&) {});
      slowest = std::max(slowest, seconds);
    }
    return slowest;
  }

  StageOptions best(const std::vector<Pass>& passes) {
    std::vector<std::pair<double, StageOptions>> tried;
    double shortest = std::numeric_limits<double>::infinity();
    for (const int64_t stages : kStages) {
      for (const double growth : kGrowths) {
        const StageOptions options{.stages = stages, .growth = growth};
        if (growth != 1 &&
            (stages == 1 || std::abs(std::log2(growth)) * static_cast<double>(stages - 1) > kMostDoublings))
          continue;
        tried.emplace_back(slowest_s(options, passes), options);
        shortest = std::min(shortest, tried.back().first);
      }
    }
    const auto good = [&](const auto& t) { return t.first <= kWorthStages * shortest; };
    return std::find_if(tried.begin(), tried.end(), good)->second;
  }

 private:
  std::vector<RankWork> whole_;
  const CostModel& model_;
  const AttentionSize& shape_;
  RankWork staged_;
};

}  // namespace

int64_t AttentionSize::bytes_per_token() const { return 2 * heads_kv * head_dim * bytes_of(dtype); }

int64_t AttentionSize::gradient_bytes_per_token() const {
  return 2 * heads_kv * head_dim * std::max<int64_t>(bytes_of(dtype), 4);
}

double CostModel::part_s(const PartSize& part, const AttentionSize& shape, Pass pass) const {
  if (part.area == 0) return 0;
  const auto head_dim = static_cast<double>(shape.head_dim);
  const double width = static_cast<double>(shape.heads_q) * head_dim;
  const double operations = 4.0 * static_cast<double>(part.area) * width;
  const double row_bytes = static_cast<double>(part.rows) * width * 4;
  const double key_bytes = static_cast<double>(part.keys) * static_cast<double>(shape.heads_kv) * head_dim * 2 * 4;
  if (pass == Pass::kForward)
    return call_s + row_bytes / row_bytes_per_s + key_bytes / key_bytes_per_s + operations / flops_per_s;
  return call_s + row_bytes / backward_row_bytes_per_s + key_bytes / backward_key_bytes_per_s +
         kBackwardOperations * operations / backward_flops_per_s;
}

double CostModel::exchange_s(int64_t tokens, const AttentionSize& shape, Cargo cargo) const {
  if (tokens == 0) return 0;
  const int64_t bytes = cargo == Cargo::kKeys ? shape.bytes_per_token() : shape.gradient_bytes_per_token();
  return latency_s + static_cast<double>(tokens) * static_cast<double>(bytes) / bytes_per_s;
}

CostModel cost_model_from_json(std::string_view json, const std::string& what) {
  const nlohmann::json document = [&] {
    try {
      return parse_json(json);
    } catch (const Error& error) {
      throw Error(error.code(), what + ": " + error.what());
    }
  }();
  const JsonReader reader(document, what);
  reader.check_keys({"flops_per_s", "bytes_per_s", "latency_s", "source"},
                    {"backward_flops_per_s", "call_s", "row_bytes_per_s", "backward_row_bytes_per_s", "key_bytes_per_s",
                     "backward_key_bytes_per_s", "overlap"});
  const auto positive = [&](const std::string& key) {
    const double value = reader.at(key).number();
    if (!(value > kLeast && value < kMost)) {
      reader.at(key).refuse("is " + std::to_string(value) + "; a number above 0 is expected (1e-15 to 1e24)");
    }
    return value;
  };
  const auto measured = [&](const std::string& key, double otherwise) {
    return reader.has(key) ? positive(key) : otherwise;
  };
  constexpr double kFree = std::numeric_limits<double>::infinity();
  const double rows = measured("row_bytes_per_s", kFree), keys = measured("key_bytes_per_s", kFree);
  CostModel model{.flops_per_s = positive("flops_per_s"),
                  .backward_flops_per_s = measured("backward_flops_per_s", positive("flops_per_s")),
                  .call_s = measured("call_s", 0),
                  .row_bytes_per_s = rows,
                  .backward_row_bytes_per_s = measured("backward_row_bytes_per_s", rows),
                  .key_bytes_per_s = keys,
                  .backward_key_bytes_per_s = measured("backward_key_bytes_per_s", keys),
                  .bytes_per_s = positive("bytes_per_s"),
                  .latency_s = positive("latency_s"),
                  .source = reader.at("source").string()};
  if (reader.has("overlap")) {
    model.overlap = reader.at("overlap").number();
    if (!(model.overlap >= 0 && model.overlap <= 1)) {
      reader.at("overlap").refuse("is " + std::to_string(model.overlap) + "; a number from 0 to 1 is expected");
    }
  }
  return model;
}

std::string to_json(const CostModel& model) {
  nlohmann::ordered_json document{
      {"flops_per_s", model.flops_per_s}, {"backward_flops_per_s", model.backward_flops_per_s},
      {"bytes_per_s", model.bytes_per_s}, {"latency_s", model.latency_s},
      {"overlap", model.overlap},         {"source", model.source}};
  if (model.call_s > 0) document["call_s"] = model.call_s;
  const auto add_finite = [&](const char* key, double bytes_per_s) {
    if (std::isfinite(bytes_per_s)) document[key] = bytes_per_s;
  };
  add_finite("row_bytes_per_s", model.row_bytes_per_s);
  add_finite("backward_row_bytes_per_s", model.backward_row_bytes_per_s);
  add_finite("key_bytes_per_s", model.key_bytes_per_s);
  add_finite("backward_key_bytes_per_s", model.backward_key_bytes_per_s);
  return document.dump(/*indent=*/2);
}

std::vector<TimelineSpan> timeline(const RankWork& work, const CostModel& model, const AttentionSize& shape,
                                   Pass pass) {
  std::vector<TimelineSpan> spans;
  walk(work, model, shape, pass, [&](const TimelineSpan& span) { spans.push_back(span); });
  return spans;
}

double one_rank_s(const AttnMaskSpec& mask, const CostModel& model, const AttentionSize& shape) {
  const PartSize whole{.area = mask.area(), .rows = mask.total_q(), .keys = mask.total_k()};
  return model.part_s(whole, shape, Pass::kForward) + model.part_s(whole, shape, Pass::kBackward);
}

Prediction predict(const DistAttnPlan& plan, const CostModel& model, const AttentionSize& shape) {
  Prediction prediction;
  const std::vector<RankWork> work = plan.work();
  for (size_t rank = 0; rank < work.size(); ++rank) {
    double computed = 0;
    const auto add = [&](const TimelineSpan& span) { computed += span.exchange ? 0 : span.end_s - span.begin_s; };
    const double forward = walk(work[rank], model, shape, Pass::kForward, add);
    const double backward = walk(work[rank], model, shape, Pass::kBackward, add);
    const double step = forward + backward;
    prediction.forward_s = std::max(prediction.forward_s, forward);
    prediction.backward_s = std::max(prediction.backward_s, backward);
    if (step <= prediction.step_s) continue;
    prediction.step_s = step;
    prediction.exposed_s = step - computed;
    prediction.slowest_rank = static_cast<int32_t>(rank);
  }
  prediction.one_rank_s = one_rank_s(plan.mask(), model, shape);
  prediction.speedup = prediction.step_s > 0 ? prediction.one_rank_s / prediction.step_s : 1;
  prediction.efficiency = prediction.speedup / static_cast<double>(work.size());
  return prediction;
}

OverlapOptions choose_overlap(const AttnMaskSpec& mask, const DispatchOptions& dispatch, OverlapOptions wanted,
                              const CostModel& model, const AttentionSize& shape) {
  const bool forward = wanted.forward.stages == kAutoStages, backward = wanted.backward.stages == kAutoStages;
  if (!forward && !backward) return wanted;
  const DistAttnPlan plan(mask, dispatch, {.keep_remote_keys = wanted.keep_remote_keys});
  if (plan.stages() == 0) {
    if (forward) wanted.forward = {};
    if (backward) wanted.backward = {};
    return wanted;
  }
  Stages stages(plan.work(), model, shape);
  if (wanted.keep_remote_keys && forward && backward) {
    wanted.forward = wanted.backward = stages.best({Pass::kForward, Pass::kBackward});
    return wanted;
  }
  if (forward) wanted.forward = stages.best({Pass::kForward});
  if (backward) wanted.backward = stages.best({Pass::kBackward});
  return wanted;
}

}  // namespace attnmux
