// How a group of ranks shares a mask, as pictures and as one page: `attnmux plan --cp N --svg F --html F`.
//
//   std::string svg = plan_to_svg(plan, model, shape, "causal:65536");
//   std::string page = plan_report_html({.title = "causal:65536", .mask = report, .plan = &plan});
//
// Pictures are self-contained SVG. Pure functions, any thread.
#pragma once

#include <string>
#include <vector>

#include "attnmux/cost_model.h"
#include "attnmux/dist_attn_plan.h"
#include "attnmux/export.h"
#include "attnmux/mask_io.h"
#include "attnmux/mask_report.h"
#include "attnmux/plan_simulation.h"

namespace attnmux {

// The mask, each query's row in the colour of the rank that owns it. Of more than 2048 chunks neighbours share the
// colour of their first.
ATTNMUX_API std::string dispatch_to_svg(const AttnMaskSpec& mask, const DispatchPlan& dispatch,
                                        const SvgOptions& options);

// One bar for each rank's attended pairs, and their mean.
ATTNMUX_API std::string balance_to_svg(const DispatchPlan& dispatch);

// Predicted exchanges and attention of at most 6 ranks, the slowest first: forward, then backward.
ATTNMUX_API std::string timeline_to_svg(const DistAttnPlan& plan, const CostModel& model, const AttentionSize& shape);

// Efficiency over ranks, a line for each scheme. steps: of simulate_schemes for ascending numbers of ranks.
ATTNMUX_API std::string simulation_to_svg(const std::vector<SchemeStep>& steps);

// Time to plan over slices and chunks, a line for each mask, beside n log n.
struct PlanGrowth {
  std::string mask;
  int64_t size = 0;  // slices + chunks, ascending for each mask
  double plan_ms = 0;
};
ATTNMUX_API std::string growth_to_svg(const std::vector<PlanGrowth>& rows);

// Dispatch, balance and timeline in one picture.
ATTNMUX_API std::string plan_to_svg(const DistAttnPlan& plan, const CostModel& model, const AttentionSize& shape,
                                    const std::string& title);

struct PlanReport {
  std::string title;
  MaskReport mask;
  const DistAttnPlan* plan = nullptr;
  CostModel model;
  AttentionSize shape;
  std::vector<SchemeStep> simulation;  // empty: none was made
};

// One page that opens offline: the mask's picture, numbers and slices, and how the ranks share it where there are some.
ATTNMUX_API std::string plan_report_html(const PlanReport& report);

}  // namespace attnmux
