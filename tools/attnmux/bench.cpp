#include <nlohmann/json.hpp>

#include "attnmux/attention_bench.h"
#include "attnmux/device.h"
#include "attnmux/error.h"
#include "attnmux/mask_io.h"
#include "attnmux/plugin_loader.h"
#include "attnmux/spelling.h"
#include "tools/attnmux/command.h"
#include "tools/attnmux/values.h"

namespace attnmux::tool {
namespace {

using nlohmann::ordered_json;

ordered_json to_json(const AttentionBenchRow& row, const std::string& mask, int64_t area) {
  ordered_json json{{"mask", mask}, {"area", area}, {"backend", row.backend}, {"pass", row.pass}};
  if (!row.refusals.empty()) {
    json["refused"] = ordered_json::array();
    for (const Reason& reason : row.refusals) {
      json["refused"].push_back({{"code", std::string(to_string(reason.code))},
                                 {"got", reason.got},
                                 {"want", reason.want},
                                 {"hint", reason.hint}});
    }
    return json;
  }
  json["ms"] = row.ms;
  json["ms_min"] = row.ms_min;
  json["host_ms"] = row.host_ms ? ordered_json(*row.host_ms) : ordered_json();
  json["tflops"] = row.tflops;
  json["ratio_to_first"] = row.ratio_to_first ? ordered_json(*row.ratio_to_first) : ordered_json();
  json["extra_bytes"] = row.extra_bytes ? ordered_json(*row.extra_bytes) : ordered_json();
  return json;
}

std::vector<std::string> to_cells(const AttentionBenchRow& row, const std::string& mask, int64_t area) {
  std::vector<std::string> cells{mask, with_separators(area), row.backend, row.pass};
  if (!row.refusals.empty()) {
    std::string reasons;
    for (const Reason& reason : row.refusals) reasons += (reasons.empty() ? "refused: " : " | ") + reason.to_string();
    cells.push_back(reasons);
    return cells;
  }
  for (const std::string& cell :
       {fixed(row.ms, 3), fixed(row.ms_min, 3), row.host_ms ? fixed(*row.host_ms, 3) : std::string("-"),
        fixed(row.tflops, 3), row.ratio_to_first ? fixed(*row.ratio_to_first, 2) : std::string("-"),
        row.extra_bytes ? fixed(static_cast<double>(*row.extra_bytes) / (1 << 20), 1) : std::string("-")}) {
    cells.push_back(cell);
  }
  return cells;
}

}  // namespace

int run_bench(const Arguments& arguments) {
  if (!arguments.empty()) {
    const Arguments rest(arguments.begin() + 1, arguments.end());
    if (arguments.front() == "plan") return run_bench_plan(rest);
    if (arguments.front() == "train") return run_bench_train(rest);
    if (arguments.front() == "comm") return run_bench_comm(rest);
    if (!arguments.front().starts_with("-")) {
      throw Error(ErrorCode::kUsage,
                  "attnmux bench: " + unknown_word("benchmark", arguments.front(), {"comm", "plan", "train"}) +
                      "; without a name it measures attention. See `attnmux bench --help`");
    }
  }
  std::string masks, backends, heads = "32:8", dtype = "bf16", device = "cpu";
  int64_t head_dim = 128, repetitions = 20;
  bool backward = false, json = false;
  Flags flags(
      {.name = "bench",
       .usage = "[comm | plan | train] --mask M[;M...] --backends A[,B...] [flags]",
       .about =
           "Measures attention of several backends on random normal tensors, in one process and in turns. Per mask,\n"
           "backend and pass: median and least time, TFLOP/s (4 x attended pairs x heads x head_dim, 2.5 times that\n"
           "backward), the speed against the first backend named (above 1: faster than it; the median over rounds),\n"
           "and the peak of memory that one call takes beyond its inputs; on a GPU, where times are taken with "
           "events,\n"
           "also the host's time of a call. A backend that declines prints its reasons.\n"
           "`attnmux bench plan` measures planning, `attnmux bench train` training steps, `attnmux bench comm` "
           "exchanges.",
       .examples = {
           "attnmux bench --mask \"causal:4096;window:4096,left=511,right=0\" --backends magi,flash --heads 9:3 "
           "--head-dim 64 --dtype fp32 --backward",
           "attnmux bench --mask causal:8192 --backends magi --device cuda --json"}});
  flags.add("mask", masks, Need::kRequired, "M[;M...]", "masks as in `attnmux plan --help`");
  flags.add("backends", backends, Need::kRequired, "A[,B...]",
            "ids of `attnmux plugins`; the first is what the others are compared with");
  flags.add("heads", heads, Need::kOptional, "Q[:KV]", "heads of q, and of k and v");
  flags.add("head-dim", head_dim, "D", "of q, k and v");
  flags.add("dtype", dtype, Need::kOptional, "T", "fp32, bf16, fp16 or fp64");
  flags.add("device", device, Need::kOptional, "DEV", "cpu, cuda or cuda:N");
  flags.add("backward", backward, "measure the backward pass, too");
  flags.add("reps", repetitions, "N", "timed rounds");
  flags.add("json", json, "answer as one JSON document");
  if (!flags.parse(arguments)) return 0;

  const auto [heads_q, heads_kv] = parse_heads(heads, "heads");
  std::vector<std::pair<std::string, AttnMaskSpec>> parsed;
  for (const std::string& text : split(masks, ';', "mask")) parsed.emplace_back(text, parse_mask(text));
  const std::vector<std::string> ids = split(backends, ',', "backends");
  const DType element = parse_dtype(dtype, "dtype");
  const at::Device where = open_device(device);
  PluginRegistry registry;
  load_plugins({}, registry);

  ordered_json document = ordered_json::array();
  std::vector<std::vector<std::string>> table{
      {"mask", "area", "backend", "pass", "ms", "ms_min", "host_ms", "tflops", "ratio_to_first", "extra_MiB"}};
  bool executed = false;
  for (const auto& [text, mask] : parsed) {
    const auto rows = bench_attention({.mask = mask,
                                       .backends = ids,
                                       .heads_q = heads_q,
                                       .heads_kv = heads_kv,
                                       .head_dim = head_dim,
                                       .dtype = element,
                                       .device = where,
                                       .backward = backward,
                                       .repetitions = repetitions},
                                      registry);
    for (const AttentionBenchRow& row : rows) {
      executed = executed || row.refusals.empty();
      document.push_back(to_json(row, text, mask.area()));
      table.push_back(to_cells(row, text, mask.area()));
    }
  }
  if (json) {
    print_json(document);
  } else {
    print_table(table);
  }
  return executed ? 0 : exit_status(ErrorCode::kNothingExecuted);
}

}  // namespace attnmux::tool
