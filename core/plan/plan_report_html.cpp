#include <algorithm>

#include "attnmux/plan_report.h"
#include "attnmux/ranges.h"
#include "html.h"

namespace attnmux {
namespace {

constexpr int32_t kRanksShown = 64;
constexpr size_t kRangesShown = 6;

std::string cell(const std::string& text) { return "<td class=\"n\">" + text + "</td>"; }

std::string group_table(const PlanReport& report, const Prediction& prediction) {
  const DistAttnPlan& plan = *report.plan;
  const DispatchPlan& dispatch = plan.dispatch();
  return "<div class=\"row\"><section><h2>Dispatch</h2>\n<table>" + row("ranks", count(dispatch.size())) +
         row("tokens a chunk", count(dispatch.options.chunk_size)) +
         row("chunks", count(std::ssize(dispatch.chunk_areas))) + row("padding", count(dispatch.padding)) +
         row("solver", std::string(to_string(dispatch.options.solver))) +
         row("largest area / mean", decimal(dispatch.balance(), 4)) + "</table></section>\n" +
         "<section><h2>Communication</h2>\n<table>" +
         row("stages forward, backward", count(plan.stages()) + ", " + count(plan.stages(Pass::kBackward))) +
         row("tokens moved", count(plan.tokens_moved())) + row("of them redundant", count(plan.redundant_tokens())) +
         row("predicted speedup", decimal(prediction.speedup, 2)) +
         row("predicted efficiency", percent(prediction.efficiency)) + row("costs", escaped(report.model.source)) +
         "</table></section></div>\n";
}

std::string ranges_text(const std::vector<Range>& ranges) {
  std::string text;
  for (size_t i = 0; i < std::min(ranges.size(), kRangesShown); ++i) {
    text.append(i == 0 ? "" : " ").append(range_text(ranges[i]));
  }
  if (ranges.size() > kRangesShown) text += " and " + count(std::ssize(ranges) - kRangesShown) + " more";
  return text.empty() ? "none" : text;
}

std::string rank_table(const DistAttnPlan& plan) {
  const DispatchPlan& dispatch = plan.dispatch();
  std::string html =
      "<h2>Ranks</h2>\n<table><tr><th>rank</th><th>chunks</th><th>tokens</th><th>pairs</th><th>tokens received</th>"
      "<th>own queries</th></tr>\n";
  const std::vector<RankWork> work = plan.work();
  for (int32_t rank = 0; rank < std::min(dispatch.size(), kRanksShown); ++rank) {
    int64_t received = 0;
    for (const StageWork& stage : work[rank].stages) received += stage.tokens_received;
    html += "<tr>" + cell(std::to_string(rank)) + cell(count(std::ssize(dispatch.chunks_of_rank[rank]))) +
            cell(count(dispatch.tokens_of(rank))) + cell(count(dispatch.area_of(rank))) + cell(count(received)) +
            "<td>" + ranges_text(dispatch.ranges_of(rank)) + "</td></tr>\n";
  }
  html += "</table>\n";
  if (dispatch.size() > kRanksShown) {
    html += "<p class=\"note\">and " + count(dispatch.size() - kRanksShown) + " more</p>\n";
  }
  return html;
}

std::string simulation_section(const std::vector<SchemeStep>& steps) {
  std::string html = "<h2>Simulation</h2>\n" + figure(simulation_to_svg(steps)) +
                     "<table><tr><th>ranks</th><th>scheme</th><th>step, ms</th><th>waiting, ms</th><th>speedup</th>"
                     "<th>efficiency</th><th>balance</th><th>tokens received</th></tr>\n";
  for (const SchemeStep& step : steps) {
    html += "<tr>" + cell(count(step.ranks)) + "<td>" + escaped(step.scheme) + "</td>" +
            cell(decimal(step.step_s * 1e3, 3)) + cell(decimal(step.exposed_s * 1e3, 3)) +
            cell(decimal(step.speedup, 1)) + cell(percent(step.efficiency)) + cell(decimal(step.balance, 3)) +
            cell(count(step.tokens_received)) + "</tr>\n";
  }
  return html +
         "</table>\n<p class=\"note\">ring and all-gather own zigzag shards (rank r of n: blocks r and 2n - 1 - r of "
         "2n). In the ring all keys visit every rank, one hop hides behind the attention with the last block; "
         "all-gather receives all keys first. For both, masked pairs cost nothing.</p>\n";
}

}  // namespace

std::string plan_report_html(const PlanReport& report) {
  const DistAttnPlan& plan = *report.plan;
  std::string body;
  if (plan.dispatch().size() == 1) {
    body = figure(mask_to_svg(plan.mask(), {.size_px = 720}));
  } else {
    body = figure(dispatch_to_svg(plan.mask(), plan.dispatch(), {.size_px = 720})) +
           group_table(report, predict(plan, report.model, report.shape)) + figure(balance_to_svg(plan.dispatch())) +
           figure(timeline_to_svg(plan, report.model, report.shape)) + rank_table(plan);
  }
  if (!report.simulation.empty()) body += simulation_section(report.simulation);
  return page(report.title, body + mask_sections(plan.mask(), report.mask));
}

}  // namespace attnmux
