#include <nlohmann/json.hpp>

#include "attnmux/calibration.h"
#include "attnmux/error.h"
#include "attnmux/mask_io.h"
#include "attnmux/plugin_loader.h"
#include "models/io/atomic_file.h"
#include "tools/attnmux/command.h"
#include "tools/attnmux/values.h"

namespace attnmux::tool {

using nlohmann::ordered_json;

int run_bench_comm(const Arguments& arguments) {
  std::string mask_text = "causal:2048", backend = "magi", heads = "8:2", dtype = "fp32", output;
  int64_t ranks = 2, head_dim = 64, repetitions = 20;
  bool json = false;
  Flags flags({.name = "bench comm",
               .usage = "[--ranks N] [--output FILE] [flags]",
               .about =
                   "Measures what exchanges between ranks and their attention take on this machine, with N ranks as\n"
                   "threads that work at the same time, and fits a latency, a bandwidth and a rate to it. The file\n"
                   "is what `attnmux plan --calibration FILE` predicts from.",
               .examples = {"attnmux bench comm --ranks 2 --output calibration.json",
                            "attnmux plan --mask causal:65536 --cp 2 --stages auto --calibration calibration.json"}});
  flags.add("ranks", ranks, "N", "threads");
  flags.add("mask", mask_text, Need::kOptional, "M", "what each rank computes; its keys are the largest exchange");
  flags.add("backend", backend, Need::kOptional, "ID", "an id of `attnmux plugins`");
  flags.add("heads", heads, Need::kOptional, "Q[:KV]", "heads of q, and of k and v");
  flags.add("head-dim", head_dim, "D", "of q, k and v");
  flags.add("dtype", dtype, Need::kOptional, "T", "fp32, bf16, fp16 or fp64");
  flags.add("reps", repetitions, "N", "timed rounds");
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

  const Calibration result = calibrate(
      {.mask = parse_mask(mask_text), .backend = backend, .size = size, .ranks = ranks, .repetitions = repetitions},
      registry);
  const CostModel& model = result.model;
  if (!output.empty()) write_file_atomically(output, to_json(model) + "\n");
  ordered_json exchanges = ordered_json::array();
  std::vector<std::vector<std::string>> table{{"tokens", "bytes", "ms", "fitted_ms"}};
  for (const ExchangeTime& exchange : result.exchanges) {
    const int64_t bytes = exchange.tokens * size.bytes_per_token();
    exchanges.push_back({{"tokens", exchange.tokens}, {"bytes", bytes}, {"ms", exchange.seconds * 1e3}});
    table.push_back({with_separators(exchange.tokens), with_separators(bytes), fixed(exchange.seconds * 1e3, 3),
                     fixed(model.comm_s(exchange.tokens, size, Pass::kForward) * 1e3, 3)});
  }
  if (json) {
    print_json(ordered_json{{"ranks", ranks},
                            {"backend", backend},
                            {"mask", mask_text},
                            {"exchanges", std::move(exchanges)},
                            {"attention_ms", result.attention_s * 1e3},
                            {"tflops", model.flops_per_s / 1e12},
                            {"link_gbps", model.bytes_per_s * 8 / 1e9},
                            {"latency_us", model.latency_s * 1e6},
                            {"source", model.source}});
    return 0;
  }
  print_table(table);
  print_line("exchange   " + fixed(model.latency_s * 1e6, 1) + " us + bytes at " +
             fixed(model.bytes_per_s * 8 / 1e9, 3) + " Gbit/s a rank");
  print_line("attention  " + fixed(result.attention_s * 1e3, 3) + " ms for " + mask_text +
             " on each rank: " + fixed(model.flops_per_s / 1e12, 4) + " TFLOP/s a rank");
  return 0;
}

}  // namespace attnmux::tool
