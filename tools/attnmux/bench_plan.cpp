#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>
#include <random>

#include "attnmux/error.h"
#include "attnmux/mask_builders.h"
#include "attnmux/mask_io.h"
#include "attnmux/mask_report.h"
#include "attnmux/plan_bench.h"
#include "tools/attnmux/command.h"
#include "tools/attnmux/values.h"

namespace attnmux::tool {
namespace {

using nlohmann::ordered_json;

struct NamedMask {
  std::string name;
  AttnMaskSpec mask;
};

// Log-normal lengths, as documents of a corpus have them; the same in every run.
std::vector<int64_t> documents(int64_t tokens, int64_t count) {
  std::mt19937_64 random(20240229);
  const auto uniform = [&] { return (static_cast<double>(random() >> 11) + 0.5) * 0x1p-53; };
  std::vector<double> weights(count);
  double sum = 0;
  for (double& weight : weights) {
    weight = std::exp(std::sqrt(-2 * std::log(uniform())) * std::cos(2 * std::numbers::pi * uniform()));
    sum += weight;
  }
  std::vector<int64_t> lengths;
  int64_t used = 0;
  double before = 0;
  for (const double weight : weights) {
    before += weight;
    const auto end = static_cast<int64_t>(before / sum * static_cast<double>(tokens));
    lengths.push_back(end - used);
    used = end;
  }
  lengths.back() += tokens - used;
  return lengths;
}

// A prompt of a quarter of the tokens, and 16 answers to it.
AttnMaskSpec tree(int64_t tokens) {
  constexpr int64_t kBranches = 16;
  std::vector<int64_t> lengths{tokens / 4};
  std::vector<std::vector<int64_t>> paths;
  for (int64_t branch = 0; branch < kBranches; ++branch) {
    lengths.push_back((tokens - lengths[0]) * (branch + 1) / kBranches - (tokens - lengths[0]) * branch / kBranches);
    paths.push_back({0, branch + 1});
  }
  return prefix_tree(lengths, paths).mask;
}

// The masks that planning has to be fast for.
std::vector<NamedMask> suite(int64_t tokens) {
  if (tokens < 1024 || tokens > int64_t{1} << 30) {
    throw Error(ErrorCode::kUsage, "--suite " + std::to_string(tokens) + ": 1024 to 1073741824 tokens are expected");
  }
  const int64_t count = tokens * 3000 >> 20;
  const std::string size = " of " + with_separators(tokens);
  return {{"causal" + size, causal_mask(tokens, tokens)},
          {"varlen" + size + " in " + with_separators(std::max<int64_t>(count, 2)) + " documents",
           varlen_mask(documents(tokens, std::max<int64_t>(count, 2)), MaskType::kCausal)},
          {"window" + size + ", left=4095", sliding_window_mask({tokens}, {.left = 4095, .right = 0})},
          {"tree" + size + " with 16 branches", tree(tokens)}};
}

// One row for each mask: how long its group's plan takes.
class GroupRows {
 public:
  GroupRows(const DispatchOptions& dispatch, const StageOptions& stages, int repetitions)
      : dispatch_(dispatch), stages_(stages), repetitions_(repetitions) {}

  void add(const NamedMask& mask) {
    const DistAttnPlan plan(mask.mask, dispatch_, stages_);
    const PlanTimes times = time_plan(mask.mask, dispatch_, stages_, repetitions_);
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
  StageOptions stages_;
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
  std::string masks, tiles = "128", suites, solver = "min-heap";
  int64_t repetitions = 20;
  DispatchOptions dispatch;
  StageOptions stages;
  bool json = false;
  Flags flags({.name = "bench plan",
               .usage = "--mask M[;M...] | --suite TOKENS[,TOKENS...] [--cp N] [flags]",
               .about =
                   "Measures how long planning takes, on one core: the median over the repetitions. Without --cp the\n"
                   "tile plan of each mask; with --cp N the dispatch to N ranks (dispatch_ms), and that together with\n"
                   "what every rank needs and one rank's masks and exchanges (plan_ms).\n\n"
                   "--suite takes a causal mask, log-normal documents (3000 a million tokens), a window and a tree of\n"
                   "16 branches, of that many tokens.",
               .examples = {"attnmux bench plan --mask \"causal:1048576;window:1048576,left=1023,right=0\" --json",
                            "attnmux bench plan --suite 1048576 --cp 64",
                            "attnmux bench plan --suite 65536,262144,1048576,4194304 --cp 64"}});
  flags.add("mask", masks, Need::kOptional, "M[;M...]", "masks as in `attnmux plan --help`");
  flags.add("suite", suites, Need::kOptional, "T[,T...]", "tokens of the usual four masks");
  flags.add("tile", tiles, Need::kOptional, "T[,T...]", "tokens a tile: powers of two from 16 to 1024");
  flags.add("cp", dispatch.cp, "N", "ranks");
  flags.add("chunk-size", dispatch.chunk_size, "C", "tokens a chunk");
  flags.add("solver", solver, Need::kOptional, "S", "min-heap, io-aware, sequential or exact");
  flags.add("stages", stages.stages, "K", "exchanges that remote keys are spread over");
  flags.add("reps", repetitions, "N", "repetitions");
  flags.add("json", json, "answer as one JSON document");
  if (!flags.parse(arguments)) return 0;
  if (repetitions < 1 || repetitions > 1'000'000) {
    throw Error(ErrorCode::kUsage,
                "attnmux bench plan --reps " + std::to_string(repetitions) + ": 1 to 1,000,000 is expected");
  }
  if (masks.empty() == suites.empty()) {
    throw Error(ErrorCode::kUsage, "attnmux bench plan takes --mask or --suite, one of them");
  }
  dispatch.solver = parse_dispatch_solver(solver);

  std::vector<NamedMask> named;
  if (!suites.empty()) {
    for (const std::string& tokens : split(suites, ',', "suite")) {
      for (NamedMask& mask : suite(whole_number(tokens, "suite"))) named.push_back(std::move(mask));
    }
  } else {
    for (const std::string& text : split(masks, ';', "mask")) named.push_back({text, parse_mask(text)});
  }
  const int count = static_cast<int>(repetitions);
  if (flags.given("cp")) {
    measure(GroupRows(dispatch, stages, count), named, json);
  } else {
    measure(TileRows(split(tiles, ',', "tile"), count), named, json);
  }
  return 0;
}

}  // namespace attnmux::tool
