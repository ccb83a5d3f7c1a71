#include <nlohmann/json.hpp>

#include "attnmux/error.h"
#include "attnmux/mask_io.h"
#include "attnmux/plan_bench.h"
#include "models/io/atomic_file.h"
#include "tools/attnmux/command.h"
#include "tools/attnmux/cost_flags.h"
#include "tools/attnmux/dispatch_flags.h"
#include "tools/attnmux/overlap_flags.h"
#include "tools/attnmux/plan_output.h"
#include "tools/attnmux/values.h"

namespace attnmux::tool {
namespace {

constexpr int kRepetitions = 5;

std::vector<SchemeStep> simulate(const std::string& ranks, const AttnMaskSpec& mask, const DispatchOptions& dispatch,
                                 const OverlapOptions& overlap, const CostModel& model, const AttentionSize& shape) {
  std::vector<int64_t> counts;
  for (const std::string& text : split(ranks, ',', "simulate-ranks")) {
    counts.push_back(whole_number(text, "simulate-ranks"));
    if (counts.back() < 1 || counts.back() > mask.total_q()) {
      throw Error(ErrorCode::kUsage, "--simulate-ranks " + text + ": from 1 to the mask's " +
                                         std::to_string(mask.total_q()) + " queries is expected");
    }
    if (counts.size() > 1 && counts.back() <= counts[counts.size() - 2]) {
      throw Error(ErrorCode::kUsage, "--simulate-ranks " + ranks + ": ascending numbers are expected");
    }
  }
  std::vector<SchemeStep> steps;
  for (const int64_t count : counts) {
    for (SchemeStep& step : simulate_schemes(mask, count, dispatch, overlap, model, shape))
      steps.push_back(std::move(step));
  }
  return steps;
}

// A picture's title is one line.
std::string one_line(const std::string& text) {
  constexpr size_t kLongest = 60;
  return text.size() <= kLongest ? text : text.substr(0, kLongest) + "...";
}

// 8 to 4096 ranks by doubling, as far as there are queries.
std::string usual_ranks(const AttnMaskSpec& mask) {
  std::string ranks;
  for (int64_t count = 8; count <= 4096 && count <= mask.total_q(); count *= 2) {
    ranks.append(ranks.empty() ? "" : ",").append(std::to_string(count));
  }
  return ranks.empty() ? "1" : ranks;
}

}  // namespace

int run_plan(const Arguments& arguments) {
  std::string mask_text, svg, html, tile = "128", solver = "min-heap", simulate_ranks;
  DispatchFlags dispatch_flags;
  bool pad = false;
  CostFlags cost;
  OverlapFlags overlap_flags;
  int64_t rank = 0;
  bool json = false, simulated = false;
  Flags flags(
      {.name = "plan",
       .usage = "--mask M [--cp N] [--stages K|auto] [--simulate] [--json] [--svg FILE] [--html FILE]",
       .about =
           "Shows what a mask is before anything runs: its exact area, its content hash, the tile plan that kernels\n"
           "walk, and pictures of it. With --cp N: which of N ranks owns which tokens, who sends what to whom, how "
           "even\n"
           "the work is and what a step takes. With --simulate: predicted steps on 8 to 4096 ranks, beside a ring and\n"
           "an all-gather scheme.\n\n"
           "Masks: full:N  full:QxK  causal:N  causal:QxK  varlen:100,200  varlen-full:100,200\n"
           "  window:N,left=L,right=R[,sink=S]  prefix-lm:100+300,50+20  block-causal:B,B  chunked:N,chunk=C\n"
           "  tree:FILE.json  bidirectional-spans:N,A-B,C-D  FILE.json",
       .examples = {"attnmux plan --mask varlen:1000,3000,96 --html plan.html",
                    "attnmux plan --mask causal:65536 --cp 8 --stages auto --html plan.html",
                    "attnmux plan --mask causal:1048576 --simulate --link-gbps 400 --tflops 500",
                    "attnmux plan --mask window:8192,left=1023,right=0 --json | jq .mask.area"}});
  flags.add("mask", mask_text, Need::kRequired, "M", "the mask, as text or FILE.json");
  dispatch_flags.add_to(flags);
  flags.add("pad", pad, "pad to a multiple of chunk size x ranks: the same number of tokens on each rank");
  flags.add("solver", solver, Need::kOptional, "S", "who deals chunks out: min-heap, io-aware, sequential or exact");
  overlap_flags.add_to(flags);
  flags.add("rank", rank, "R", "the only rank that --json lists; thousands of them make a long document");
  flags.add("simulate", simulated, "predict steps on many ranks, beside other schemes");
  flags.add("simulate-ranks", simulate_ranks, Need::kOptional, "N[,N...]", "instead of 8, 16, ... 4096");
  cost.add_to(flags);
  flags.add("tile", tile, Need::kOptional, "T", "tokens a tile: a power of two from 16 to 1024");
  flags.add("json", json, "answer as one JSON document");
  flags.add("svg", svg, Need::kOptional, "FILE", "write the picture");
  flags.add("html", html, Need::kOptional, "FILE", "write one page with pictures and numbers; it opens offline");
  if (!flags.parse(arguments)) return 0;

  const AttnMaskSpec mask = parse_mask(mask_text);
  const TileShape tile_shape = parse_tile_shape(tile, "tile");
  const AttentionSize shape = cost.shape();
  const CostModel model = cost.model(flags);
  DispatchOptions dispatch = dispatch_flags.options(flags, mask.total_q());
  dispatch.pad = pad;
  dispatch.solver = parse_dispatch_solver(solver);
  for (const std::string& file : {svg, html}) check_output_path(file);
  if (flags.given("rank") && (rank < 0 || rank >= dispatch.cp)) {
    throw Error(ErrorCode::kUsage, "--rank " + std::to_string(rank) + ": a rank from 0 to " +
                                       std::to_string(dispatch.cp - 1) + " is expected");
  }
  if (simulated && mask.total_q() == 0) {
    throw Error(ErrorCode::kUsage, "--simulate: the mask " + mask_text + " has no queries to deal out");
  }
  if (flags.given("simulate-ranks") && !simulated) {
    throw Error(ErrorCode::kUsage, "--simulate-ranks goes with --simulate");
  }

  const OverlapOptions overlap = choose_overlap(mask, dispatch, overlap_flags.options(flags), model, shape);
  const DistAttnPlan plan(mask, dispatch, overlap);
  // On each number of ranks the best stages, unless some are asked for.
  OverlapOptions simulated_overlap = overlap_flags.options(flags);
  if (!flags.given("stages")) simulated_overlap.forward = kAutoOverlap.forward;
  if (!flags.given("stages") && !flags.given("backward-stages")) simulated_overlap.backward = kAutoOverlap.backward;
  const PlanReport report{.title = mask_text,
                          .mask = make_mask_report(mask, tile_shape, kRepetitions),
                          .plan = &plan,
                          .model = model,
                          .shape = shape,
                          .simulation = simulated
                                            ? simulate(simulate_ranks.empty() ? usual_ranks(mask) : simulate_ranks,
                                                       mask, dispatch, simulated_overlap, model, shape)
                                            : std::vector<SchemeStep>()};
  const bool one_rank = dispatch.cp == 1;
  if (!svg.empty()) {
    write_file_atomically(svg, one_rank ? mask_to_svg(mask, {.title = one_line(mask_text)})
                                        : plan_to_svg(plan, model, shape, one_line(mask_text)));
  }
  if (!html.empty()) write_file_atomically(html, plan_report_html(report));
  const PlanAnswer answer{.mask = mask,
                          .report = report,
                          .plan_ms = time_plan(mask, dispatch, overlap, kRepetitions).plan_ms,
                          .rank = flags.given("rank") ? std::optional(static_cast<int32_t>(rank)) : std::nullopt};
  if (json) {
    print_json(answer);
  } else {
    print(answer);
  }
  return 0;
}

}  // namespace attnmux::tool
