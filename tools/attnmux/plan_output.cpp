#include "tools/attnmux/plan_output.h"

#include <iostream>
#include <nlohmann/json.hpp>

#include "attnmux/mask_io.h"
#include "attnmux/ranges.h"
#include "tools/attnmux/command.h"

namespace attnmux::tool {
namespace {

using nlohmann::ordered_json;

constexpr int32_t kRanksShown = 16;

ordered_json mask_json(const AttnMaskSpec& mask, const MaskReport& report) {
  return {{"total_q", report.total_q},
          {"total_k", report.total_k},
          {"area", report.area},
          {"slices", ordered_json::parse(mask_to_json(mask)).at("slices")},
          {"hash", to_string(report.hash)},
          {"family", std::string(to_string(report.family))},
          {"density", report.density},
          {"rows_without_keys", report.rows_without_keys},
          {"overlaps", report.overlaps}};
}

ordered_json tile_plan_json(const MaskReport& report) {
  const TilePlanSummary& tiles = report.tiles;
  return {{"tile", {tiles.shape.q, tiles.shape.k}},
          {"tiles", {tiles.q_tiles, tiles.k_tiles}},
          {"unmasked", tiles.unmasked_tiles},
          {"partial", tiles.partial_tiles},
          {"empty", tiles.empty_tiles},
          {"runs", tiles.runs},
          {"distinct_masks", tiles.distinct_masks},
          {"bytes", tiles.bytes},
          {"efficiency", tiles.efficiency},
          {"plan_ms", report.plan_ms}};
}

ordered_json rank_json(const DistAttnPlan& plan, int32_t rank) {
  const std::shared_ptr<const RankPlan> part = plan.rank(rank);
  ordered_json remote = ordered_json::array();
  for (const Range& range : part->remote_k) remote.push_back({range.begin, range.end});
  const auto stages = [&](Pass pass) {
    ordered_json list = ordered_json::array();
    for (const StagePlan& stage : part->of(pass)) {
      list.push_back({{"area", stage.mask.area()}, {"tokens", count_tokens(stage.keys)}});
    }
    return list;
  };
  return {{"rank", rank},
          {"chunks", plan.dispatch().chunks_of_rank[rank]},
          {"tokens", plan.dispatch().tokens_of(rank)},
          {"area", plan.dispatch().area_of(rank)},
          {"remote_k", std::move(remote)},
          {"tokens_received", part->cast.tokens_received()},
          {"group_cast",
           {{"input_splits", part->cast.input_splits},
            {"dst", part->cast.dst},
            {"output_splits", part->cast.output_splits},
            {"src", part->cast.src}}},
          {"host_area", part->host.mask.area()},
          {"stages", stages(Pass::kForward)},
          {"backward_stages", stages(Pass::kBackward)}};
}

ordered_json cost_json(const CostModel& model, const AttentionSize& shape) {
  return {{"tflops", model.flops_per_s / 1e12},          {"link_gbps", model.bytes_per_s * 8 / 1e9},
          {"latency_us", model.latency_s * 1e6},         {"source", model.source},
          {"heads", {shape.heads_q, shape.heads_kv}},    {"head_dim", shape.head_dim},
          {"dtype", std::string(to_string(shape.dtype))}};
}

ordered_json simulation_json(const PlanReport& report) {
  ordered_json rows = ordered_json::array();
  for (const SchemeStep& step : report.simulation) {
    rows.push_back({{"ranks", step.ranks},
                    {"scheme", step.scheme},
                    {"step_ms", step.step_s * 1e3},
                    {"exposed_ms", step.exposed_s * 1e3},
                    {"speedup", step.speedup},
                    {"efficiency", step.efficiency},
                    {"balance", step.balance},
                    {"tokens_received", step.tokens_received},
                    {"stages", step.stages},
                    {"stage_growth", step.growth},
                    {"backward_stages", step.backward_stages},
                    {"backward_stage_growth", step.backward_growth},
                    {"chunk_size", step.chunk_size > 0 ? ordered_json(step.chunk_size) : ordered_json()}});
  }
  return {{"cost", cost_json(report.model, report.shape)}, {"rows", std::move(rows)}};
}

void print_mask(const AttnMaskSpec& mask, const MaskReport& report) {
  const TilePlanSummary& tiles = report.tiles;
  print_table(
      {{"mask", ""},
       {"  queries x keys", with_separators(report.total_q) + " x " + with_separators(report.total_k)},
       {"  attended pairs", with_separators(report.area) + "  (" + fixed(report.density * 100, 2) + " % of all)"},
       {"  family", std::string(to_string(report.family))},
       {"  queries without keys", with_separators(report.rows_without_keys)},
       {"  slices", with_separators(static_cast<int64_t>(mask.slices().size()))},
       {"  hash", to_string(report.hash)},
       {"tile plan", ""},
       {"  tile", std::to_string(tiles.shape.q) + " x " + std::to_string(tiles.shape.k)},
       {"  tiles unmasked", with_separators(tiles.unmasked_tiles)},
       {"  tiles partial", with_separators(tiles.partial_tiles) + "  (" + with_separators(tiles.distinct_masks) +
                               " distinct masks stored)"},
       {"  tiles never visited", with_separators(tiles.empty_tiles)},
       {"  runs, bytes", with_separators(tiles.runs) + ", " + with_separators(tiles.bytes)},
       {"  efficiency", fixed(tiles.efficiency * 100, 2) + " %  (attended pairs / pairs of visited tiles)"},
       {"  time to plan", fixed(report.plan_ms, 3) + " ms, median"}});
  for (const std::string& line : report.overlaps) print_line("note: " + line + "; such pairs count once");
}

void print_group(const PlanAnswer& answer) {
  const DistAttnPlan& plan = *answer.report.plan;
  const DispatchPlan& dispatch = plan.dispatch();
  const CostModel& model = answer.report.model;
  const Prediction prediction = predict(plan, model, answer.report.shape);
  print_table(
      {{"group", ""},
       {"  ranks", with_separators(dispatch.size())},
       {"  chunks", with_separators(std::ssize(dispatch.chunk_areas)) + " of " +
                        with_separators(dispatch.options.chunk_size) + " tokens, dealt by " +
                        std::string(to_string(dispatch.options.solver))},
       {"  padding", with_separators(dispatch.padding) + " tokens"},
       {"  balance", fixed(dispatch.balance(), 4) + "  (largest area / mean)"},
       {"  tokens moved", with_separators(plan.tokens_moved()) + "  (" + with_separators(plan.redundant_tokens()) +
                              " of them redundant)"},
       {"  stages", with_separators(plan.stages()) + " forward, " + with_separators(plan.stages(Pass::kBackward)) +
                        " backward" + (plan.overlap().keep_remote_keys ? ", remote keys kept in between" : "")},
       {"  predicted step",
        fixed(prediction.step_s * 1e3, 3) + " ms, of it waiting " + fixed(prediction.exposed_s * 1e3, 3) + " ms"},
       {"  predicted speedup",
        fixed(prediction.speedup, 2) + "  (efficiency " + fixed(prediction.efficiency * 100, 2) + " %)"},
       {"  costs", model.source + ": " + fixed(model.flops_per_s / 1e12, 3) + " TFLOP/s, " +
                       fixed(model.bytes_per_s * 8 / 1e9, 3) + " Gbit/s, " + fixed(model.latency_s * 1e6, 1) +
                       " us an exchange"},
       {"  time to plan", fixed(answer.plan_ms, 3) + " ms, median"}});
  std::vector<std::vector<std::string>> table{{"rank", "chunks", "tokens", "area", "received", "ranges"}};
  const std::vector<RankWork> work = plan.work();
  for (int32_t rank = 0; rank < std::min(dispatch.size(), kRanksShown); ++rank) {
    int64_t received = 0;
    for (const StageWork& stage : work[rank].stages) received += stage.tokens_received;
    table.push_back({std::to_string(rank), std::to_string(dispatch.chunks_of_rank[rank].size()),
                     with_separators(dispatch.tokens_of(rank)), with_separators(dispatch.area_of(rank)),
                     with_separators(received), std::to_string(dispatch.ranges_of(rank).size())});
  }
  print_table(table);
  if (dispatch.size() > kRanksShown) {
    print_line("and " + std::to_string(dispatch.size() - kRanksShown) + " more; --json lists all");
  }
}

void print_simulation(const PlanReport& report) {
  std::vector<std::vector<std::string>> table{
      {"ranks", "scheme", "step_ms", "waiting_ms", "speedup", "efficiency_%", "balance", "received"}};
  for (const SchemeStep& step : report.simulation) {
    table.push_back({std::to_string(step.ranks), step.scheme, fixed(step.step_s * 1e3, 3),
                     fixed(step.exposed_s * 1e3, 3), fixed(step.speedup, 1), fixed(step.efficiency * 100, 2),
                     fixed(step.balance, 3), with_separators(step.tokens_received)});
  }
  print_line("simulation, one layer's attention forward and backward (" + report.model.source +
             " costs: " + fixed(report.model.flops_per_s / 1e12, 3) + " TFLOP/s, " +
             fixed(report.model.bytes_per_s * 8 / 1e9, 3) + " Gbit/s)");
  print_table(table);
  print_line("ring and all-gather own zigzag shards: rank r of n has blocks r and 2n - 1 - r of 2n");
}

}  // namespace

void print_json(const PlanAnswer& answer) {
  const DistAttnPlan& plan = *answer.report.plan;
  const DispatchPlan& dispatch = plan.dispatch();
  const Prediction prediction = predict(plan, answer.report.model, answer.report.shape);
  const ordered_json head{{"mask", mask_json(answer.mask, answer.report.mask)},
                          {"cp", dispatch.size()},
                          {"chunk_size", dispatch.options.chunk_size},
                          {"pad", dispatch.padding},
                          {"solver", std::string(to_string(dispatch.options.solver))},
                          {"stages", plan.stages()},
                          {"stage_growth", plan.overlap().forward.growth},
                          {"backward_stages", plan.stages(Pass::kBackward)},
                          {"backward_stage_growth", plan.overlap().backward.growth},
                          {"keep_remote_keys", plan.overlap().keep_remote_keys},
                          {"hash", to_string(plan.hash())},
                          {"chunk_areas", dispatch.chunk_areas}};
  ordered_json tail{{"balance", dispatch.balance()},
                    {"tokens_moved", plan.tokens_moved()},
                    {"redundant_tokens", plan.redundant_tokens()},
                    {"predicted",
                     {{"speedup", prediction.speedup},
                      {"efficiency", prediction.efficiency},
                      {"step_ms", prediction.step_s * 1e3},
                      {"exposed_ms", prediction.exposed_s * 1e3},
                      {"cost", cost_json(answer.report.model, answer.report.shape)}}},
                    {"tile_plan", tile_plan_json(answer.report.mask)},
                    {"plan_ms", answer.plan_ms}};
  if (!answer.report.simulation.empty()) tail["simulation"] = simulation_json(answer.report);
  const std::string begin = head.dump(), end = tail.dump();  // "{..}": joined around the ranks
  std::cout << begin.substr(0, begin.size() - 1) << ",\"ranks\":[";
  const int32_t first = answer.rank.value_or(0), last = answer.rank.value_or(dispatch.size() - 1);
  for (int32_t rank = first; rank <= last; ++rank) {
    std::cout << (rank == first ? "" : ",") << rank_json(plan, rank).dump();
  }
  print_line("]," + end.substr(1));
}

void print(const PlanAnswer& answer) {
  print_mask(answer.mask, answer.report.mask);
  if (answer.report.plan->dispatch().size() > 1) print_group(answer);
  if (!answer.report.simulation.empty()) print_simulation(answer.report);
}

}  // namespace attnmux::tool
