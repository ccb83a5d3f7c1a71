#include <cmath>
#include <nlohmann/json.hpp>

#include "attnmux/error.h"
#include "attnmux/mask_io.h"
#include "attnmux/mask_report.h"
#include "attnmux/plan_bench.h"
#include "attnmux/plan_report.h"
#include "models/io/atomic_file.h"
#include "tools/attnmux/command.h"
#include "tools/attnmux/mask_suite.h"
#include "tools/attnmux/values.h"

namespace attnmux::tool {
namespace {

using nlohmann::ordered_json;

// One row for each mask: how long its group's plan takes.
class GroupRows {
 public:
  GroupRows(const DispatchOptions& dispatch, const OverlapOptions& overlap, int repetitions)
      : dispatch_(dispatch), overlap_(overlap), repetitions_(repetitions) {}

  void add(const NamedMask& mask) {
    const DistAttnPlan plan(mask.mask, dispatch_, overlap_);
    const PlanTimes times = time_plan(mask.mask, dispatch_, overlap_, repetitions_);
    const int64_t chunks = std::ssize(plan.dispatch().chunk_areas);
    const int64_t slices = std::ssize(mask.mask.disjoint_slices());
    document.push_back({{"mask", mask.name},
                        {"area", mask.mask.area()},
                        {"cp", dispatch_.cp},
                        {"chunk_size", dispatch_.chunk_size},
                        {"solver", std::string(to_string(dispatch_.solver))},
                        {"stages", plan.stages()},
                        {"chunks", chunks},
                        {"slices", slices},
                        {"balance", plan.dispatch().balance()},
                        {"tokens_moved", plan.tokens_moved()},
                        {"dispatch_ms", times.dispatch_ms},
                        {"plan_ms", times.plan_ms}});
    table.push_back({mask.name, std::to_string(dispatch_.cp), with_separators(chunks), with_separators(slices),
                     fixed(plan.dispatch().balance(), 4), with_separators(plan.tokens_moved()),
                     fixed(times.dispatch_ms, 3), fixed(times.plan_ms, 3)});
  }

  ordered_json document = ordered_json::array();
  std::vector<std::vector<std::string>> table{
      {"mask", "ranks", "chunks", "slices", "balance", "tokens_moved", "dispatch_ms", "plan_ms"}};

 private:
  DispatchOptions dispatch_;
  OverlapOptions overlap_;
  int repetitions_;
};

// One row for each mask and tile.
class TileRows {
 public:
  TileRows(std::vector<std::string> tiles, int repetitions) : tiles_(std::move(tiles)), repetitions_(repetitions) {}

  void add(const NamedMask& mask) {
    for (const std::string& tile : tiles_) {
      const MaskReport report = make_mask_report(mask.mask, parse_tile_shape(tile, "tile"), repetitions_);
      document.push_back({{"mask", mask.name},
                          {"area", report.area},
                          {"tile", report.tiles.shape.q},
                          {"runs", report.tiles.runs},
                          {"bytes", report.tiles.bytes},
                          {"plan_ms", report.plan_ms}});
      table.push_back({mask.name, with_separators(report.area), tile, with_separators(report.tiles.runs),
                       with_separators(report.tiles.bytes), fixed(report.plan_ms, 3)});
    }
  }

  ordered_json document = ordered_json::array();
  std::vector<std::vector<std::string>> table{{"mask", "area", "tile", "runs", "bytes", "plan_ms"}};

 private:
  std::vector<std::string> tiles_;
  int repetitions_;
};

constexpr int kSmallestGrowth = 16, kLargestGrowth = 22;  // powers of two: tokens

// Every 1024th key begins 64 that all queries attend: slices that span the sequence, as many more as tokens are more.
AttnMaskSpec columns(int64_t tokens) {
  std::vector<AttnSlice> slices;
  for (int64_t key = 0; key < tokens; key += 1024) slices.push_back({.q = {0, tokens}, .k = {key, key + 64}});
  return AttnMaskSpec(slices, tokens, tokens);
}

// The usual masks and columns, of ever more tokens on the same ranks.
std::vector<PlanGrowth> measure_growth(const DispatchOptions& dispatch, const OverlapOptions& overlap,
                                       int repetitions) {
  const std::vector<std::string> names{"causal", "documents", "window", "tree", "columns"};
  std::vector<PlanGrowth> rows;
  for (int power = kSmallestGrowth; power <= kLargestGrowth; ++power) {
    const int64_t tokens = int64_t{1} << power;
    std::vector<NamedMask> masks = mask_suite(tokens);
    masks.push_back({"columns", columns(tokens)});
    for (size_t i = 0; i < masks.size(); ++i) {
      const AttnMaskSpec& mask = masks[i].mask;
      const int64_t chunks = (tokens + dispatch.chunk_size - 1) / dispatch.chunk_size;
      rows.push_back({.mask = names[i],
                      .size = std::ssize(mask.disjoint_slices()) + chunks,
                      .plan_ms = time_plan(mask, dispatch, overlap, repetitions).plan_ms});
    }
  }
  return rows;
}

void answer_growth(const std::vector<PlanGrowth>& rows, const std::string& svg, bool json) {
  if (!svg.empty()) write_file_atomically(svg, growth_to_svg(rows));
  ordered_json document = ordered_json::array();
  std::vector<std::vector<std::string>> table{{"mask", "slices_and_chunks", "plan_ms", "us_per_n_log2_n"}};
  for (const PlanGrowth& row : rows) {
    const auto n = static_cast<double>(row.size);
    const double us = row.plan_ms * 1e3 / (n * std::log2(n));
    document.push_back(
        {{"mask", row.mask}, {"slices_and_chunks", row.size}, {"plan_ms", row.plan_ms}, {"us_per_n_log2_n", us}});
    table.push_back({row.mask, with_separators(row.size), fixed(row.plan_ms, 3), fixed(us, 4)});
  }
  if (json) {
    print_json(document);
  } else {
    print_table(table);
  }
}

template <class Rows>
void measure(Rows rows, const std::vector<NamedMask>& masks, bool json) {
  for (const NamedMask& mask : masks) rows.add(mask);
  if (json) {
    print_json(rows.document);
  } else {
    print_table(rows.table);
  }
}

}  // namespace

int run_bench_plan(const Arguments& arguments) {
  std::string masks, tiles = "128", suites, solver = "min-heap", svg;
  int64_t repetitions = 20, stages = 1;
  DispatchOptions dispatch;
  bool json = false, growth = false;
  Flags flags({.name = "bench plan",
               .usage = "--mask M[;M...] | --suite TOKENS[,TOKENS...] | --growth [--cp N] [flags]",
               .about =
                   "Measures how long planning takes, on one core: the median over the repetitions. Without --cp the\n"
                   "tile plan of each mask; with --cp N the dispatch to N ranks (dispatch_ms), and that together with\n"
                   "what every rank needs and one rank's masks and exchanges (plan_ms).\n\n"
                   "--suite takes a causal mask, log-normal documents (3000 a million tokens), a window and a tree of\n"
                   "16 branches, of that many tokens. --growth plans these, and one of columns that all queries\n"
                   "attend, for 64 ranks or --cp N, from 65,536 tokens to 4,194,304.",
               .examples = {"attnmux bench plan --mask \"causal:1048576;window:1048576,left=1023,right=0\" --json",
                            "attnmux bench plan --suite 1048576 --cp 64",
                            "attnmux bench plan --suite 65536,262144,1048576,4194304 --cp 64",
                            "attnmux bench plan --growth --svg growth.svg"}});
  flags.add("mask", masks, Need::kOptional, "M[;M...]", "masks as in `attnmux plan --help`");
  flags.add("suite", suites, Need::kOptional, "T[,T...]", "tokens of the usual four masks");
  flags.add("growth", growth, "time over slices and chunks, beside n log n");
  flags.add("svg", svg, Need::kOptional, "FILE", "with --growth: the picture");
  flags.add("tile", tiles, Need::kOptional, "T[,T...]", "tokens a tile: powers of two from 16 to 1024");
  flags.add("cp", dispatch.cp, "N", "ranks");
  flags.add("chunk-size", dispatch.chunk_size, "C", "tokens a chunk");
  flags.add("solver", solver, Need::kOptional, "S", "min-heap, io-aware, sequential or exact");
  flags.add("stages", stages, "K", "exchanges that remote keys are spread over");
  flags.add("reps", repetitions, "N", "repetitions");
  flags.add("json", json, "answer as one JSON document");
  if (!flags.parse(arguments)) return 0;
  if (repetitions < 1 || repetitions > 1'000'000) {
    throw Error(ErrorCode::kUsage,
                "attnmux bench plan --reps " + std::to_string(repetitions) + ": 1 to 1,000,000 is expected");
  }
  if (int{!masks.empty()} + int{!suites.empty()} + int{growth} != 1) {
    throw Error(ErrorCode::kUsage, "attnmux bench plan takes --mask, --suite or --growth, one of them");
  }
  if (!svg.empty() && !growth) throw Error(ErrorCode::kUsage, "attnmux bench plan: --svg goes with --growth");
  dispatch.solver = parse_dispatch_solver(solver);
  const OverlapOptions overlap{.forward = {.stages = stages}};
  if (growth) {
    if (!flags.given("cp")) dispatch.cp = 64;
    answer_growth(measure_growth(dispatch, overlap, static_cast<int>(repetitions)), svg, json);
    return 0;
  }

  std::vector<NamedMask> named;
  if (!suites.empty()) {
    for (const std::string& tokens : split(suites, ',', "suite")) {
      for (NamedMask& mask : mask_suite(whole_number(tokens, "suite"))) named.push_back(std::move(mask));
    }
  } else {
    for (const std::string& text : split(masks, ';', "mask")) named.push_back({text, parse_mask(text)});
  }
  const int count = static_cast<int>(repetitions);
  if (flags.given("cp")) {
    measure(GroupRows(dispatch, overlap, count), named, json);
  } else {
    measure(TileRows(split(tiles, ',', "tile"), count), named, json);
  }
  return 0;
}

}  // namespace attnmux::tool
