// How long planning for a group of ranks takes.
//
//   PlanTimes times = time_plan(mask, {.cp = 64}, {}, /*repetitions=*/20);
#pragma once

#include "attnmux/dist_attn_plan.h"
#include "attnmux/export.h"

namespace attnmux {

// Medians, in milliseconds, on the calling thread.
struct PlanTimes {
  double dispatch_ms = 0;  // who owns what
  double plan_ms = 0;      // that, what every rank needs, and one rank's masks and exchanges
};

// The rank is the middle one. Throws Error(kInvalidArgument) for repetitions below 1 and as DistAttnPlan does.
ATTNMUX_API PlanTimes time_plan(const AttnMaskSpec& mask, const DispatchOptions& dispatch,
                                const OverlapOptions& overlap, int repetitions);

}  // namespace attnmux
