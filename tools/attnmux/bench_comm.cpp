#include <algorithm>
#include <nlohmann/json.hpp>

#include "attnmux/calibration.h"
#include "attnmux/error.h"
#include "attnmux/mask_io.h"
#include "attnmux/plugin_loader.h"
#include "models/io/atomic_file.h"
#include "tools/attnmux/command.h"
#include "tools/attnmux/mask_suite.h"
#include "tools/attnmux/values.h"

namespace attnmux::tool {

namespace {

using nlohmann::ordered_json;

constexpr int64_t kChunksPerRank = 8;
constexpr int64_t kCheckedStages[] = {1, 2, 4};

struct NamedPlan {
  std::string name;
  DistAttnPlan plan;
};

// Plans that predictions are checked on.
std::vector<NamedPlan> plans_of(const std::vector<NamedMask>& masks, int64_t ranks) {
  std::vector<NamedPlan> plans;
  for (const auto& [name, mask] : masks) {
    const DispatchOptions dispatch{.cp = ranks,
                                   .chunk_size = std::max<int64_t>(mask.total_q() / (ranks * kChunksPerRank), 1)};
    for (const int64_t stages : kCheckedStages) {
      plans.push_back({name, DistAttnPlan(mask, dispatch, OverlapOptions{.forward = {.stages = stages}})});
      if (plans.back().plan.stages() == 0) break;  // nothing to exchange, whatever is asked for
    }
  }
  return plans;
}

// What the calibration predicts of plans, beside what they took.
class PredictionRows {
 public:
  PredictionRows(const CostModel& model, const AttentionSize& size) : model_(model), size_(size) {}

  void add(const NamedPlan& plan, const PassTimes& times) {
    const Prediction prediction = predict(plan.plan, model_, size_);
    add(plan, "fwd", prediction.forward_s, times.forward_s);
    add(plan, "bwd", prediction.backward_s, times.backward_s);
  }

  ordered_json document = ordered_json::array();
  std::vector<std::vector<std::string>> table{
      {"mask", "stages", "pass", "predicted_ms", "measured_ms", "predicted/measured"}};

 private:
  void add(const NamedPlan& plan, const std::string& pass, double predicted, double measured) {
    document.push_back({{"mask", plan.name},
                        {"cp", plan.plan.dispatch().size()},
                        {"chunk_size", plan.plan.dispatch().options.chunk_size},
                        {"stages", plan.plan.stages()},
                        {"pass", pass},
                        {"predicted_ms", predicted * 1e3},
                        {"measured_ms", measured * 1e3},
                        {"ratio", predicted / measured}});
    table.push_back({plan.name, std::to_string(plan.plan.stages()), pass, fixed(predicted * 1e3, 3),
                     fixed(measured * 1e3, 3), fixed(predicted / measured, 3)});
  }

  const CostModel& model_;
  const AttentionSize& size_;
};

}  // namespace

int run_bench_comm(const Arguments& arguments) {
  std::string mask_text = "causal:2048", backend = "magi", heads = "8:2", dtype = "fp32", output;
  int64_t ranks = 2, head_dim = 64, repetitions = 20, suite = 0;
  bool json = false;
  Flags flags({.name = "bench comm",
               .usage = "[--ranks N] [--output FILE] [--suite TOKENS] [flags]",
               .about =
                   "Measures what exchanges between ranks and their attention take on this machine, with N ranks as\n"
                   "threads that work at the same time, and fits a cost model to it. The file is what\n"
                   "`attnmux plan --calibration FILE` predicts from. Times are medians of rounds in which all things "
                   "take turns; give each\n"
                   "rank a core (OMP_NUM_THREADS, taskset) for figures that repeat.\n\n"
                   "--suite TOKENS holds the model against what plans take, forward and backward, with 1, 2 and 4\n"
                   "stages: a causal mask, log-normal documents, a window, a tree of 16 branches.",
               .examples = {"attnmux bench comm --ranks 2 --output calibration.json",
                            "attnmux bench comm --ranks 2 --suite 4096",
                            "attnmux plan --mask causal:65536 --cp 2 --stages auto --calibration calibration.json"}});
  flags.add("ranks", ranks, "N", "threads");
  flags.add("mask", mask_text, Need::kOptional, "M", "what each rank computes; its keys are the largest exchange");
  flags.add("backend", backend, Need::kOptional, "ID", "an id of `attnmux plugins`");
  flags.add("heads", heads, Need::kOptional, "Q[:KV]", "heads of q, and of k and v");
  flags.add("head-dim", head_dim, "D", "of q, k and v");
  flags.add("dtype", dtype, Need::kOptional, "T", "fp32, bf16, fp16 or fp64");
  flags.add("reps", repetitions, "N", "timed rounds");
  flags.add("suite", suite, "T", "tokens of the masks that predictions are checked on");
  flags.add("output", output, Need::kOptional, "FILE", "write the calibration");
  flags.add("json", json, "answer as one JSON document");
  if (!flags.parse(arguments)) return 0;
  if (ranks < 2 || ranks > 1024) {
    throw Error(ErrorCode::kUsage,
                "attnmux bench comm --ranks " + std::to_string(ranks) + ": at least 2 are expected, at most 1024");
  }
  if (head_dim < 1 || repetitions < 1) {
    throw Error(ErrorCode::kUsage, "attnmux bench comm: --head-dim and --reps are at least 1");
  }
  const auto [heads_q, heads_kv] = parse_heads(heads, "heads");
  const AttentionSize size{
      .heads_q = heads_q, .heads_kv = heads_kv, .head_dim = head_dim, .dtype = parse_dtype(dtype, "dtype")};
  PluginRegistry registry;
  load_plugins({}, registry);

  CalibrationOptions options{
      .mask = parse_mask(mask_text), .backend = backend, .size = size, .ranks = ranks, .repetitions = repetitions};
  std::vector<NamedPlan> plans;
  if (flags.given("suite")) plans = plans_of(mask_suite(suite), ranks);
  for (const NamedPlan& plan : plans) options.plans.push_back(plan.plan);
  const Calibration result = calibrate(options, registry);
  const CostModel& model = result.model;
  PredictionRows predictions(model, size);
  for (size_t i = 0; i < plans.size(); ++i) predictions.add(plans[i], result.plans[i]);
  if (!output.empty()) write_file_atomically(output, to_json(model) + "\n");
  ordered_json exchanges = ordered_json::array();
  std::vector<std::vector<std::string>> table{{"tokens", "bytes", "ms", "fitted_ms"}};
  for (const ExchangeTime& exchange : result.exchanges) {
    const int64_t bytes = exchange.tokens * size.bytes_per_token();
    exchanges.push_back({{"tokens", exchange.tokens}, {"bytes", bytes}, {"ms", exchange.seconds * 1e3}});
    table.push_back({with_separators(exchange.tokens), with_separators(bytes), fixed(exchange.seconds * 1e3, 3),
                     fixed(model.exchange_s(exchange.tokens, size, Cargo::kKeys) * 1e3, 3)});
  }
  if (json) {
    ordered_json document{{"ranks", ranks},
                          {"backend", backend},
                          {"mask", mask_text},
                          {"exchanges", std::move(exchanges)},
                          {"attention_ms", result.forward_s * 1e3},
                          {"backward_ms", result.backward_s * 1e3},
                          {"tflops", model.flops_per_s / 1e12},
                          {"backward_tflops", model.backward_flops_per_s / 1e12},
                          {"call_us", model.call_s * 1e6},
                          {"row_gbytes_per_s", model.row_bytes_per_s / 1e9},
                          {"backward_row_gbytes_per_s", model.backward_row_bytes_per_s / 1e9},
                          {"key_gbytes_per_s", model.key_bytes_per_s / 1e9},
                          {"backward_key_gbytes_per_s", model.backward_key_bytes_per_s / 1e9},
                          {"link_gbps", model.bytes_per_s * 8 / 1e9},
                          {"latency_us", model.latency_s * 1e6},
                          {"overlap", model.overlap},
                          {"source", model.source}};
    if (flags.given("suite")) document["predictions"] = std::move(predictions.document);
    print_json(document);
    return 0;
  }
  print_table(table);
  print_line("exchange   " + fixed(model.latency_s * 1e6, 1) + " us + bytes at " +
             fixed(model.bytes_per_s * 8 / 1e9, 3) + " Gbit/s a rank");
  print_line("attention  " + fixed(result.forward_s * 1e3, 3) + " ms forward, " + fixed(result.backward_s * 1e3, 3) +
             " ms backward for " + mask_text + " on each rank: " + fixed(model.call_s * 1e6, 1) + " us + rows at " +
             fixed(model.row_bytes_per_s / 1e9, 2) + " and " + fixed(model.backward_row_bytes_per_s / 1e9, 2) +
             " GB/s + keys at " + fixed(model.key_bytes_per_s / 1e9, 2) + " and " +
             fixed(model.backward_key_bytes_per_s / 1e9, 2) + " GB/s + " + fixed(model.flops_per_s / 1e12, 4) +
             " and " + fixed(model.backward_flops_per_s / 1e12, 4) + " TFLOP/s a rank");
  print_line("overlap    " + fixed(model.overlap, 2) + " of an exchange under way slows attention by nothing");
  if (flags.given("suite")) print_table(predictions.table);
  return 0;
}

}  // namespace attnmux::tool
