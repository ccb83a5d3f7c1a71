// Plans that were made before. Steps repeat masks; a plan depends on the mask's content, not on the step.
//
//   PlanCache cache;
//   std::shared_ptr<const DistAttnPlan> plan = cache.plan(mask, {.cp = 4}, kAutoOverlap, shape);
//
// Any thread. Keeps the plans used last; what a caller holds stays valid.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "attnmux/cost_model.h"
#include "attnmux/dist_attn_plan.h"
#include "attnmux/export.h"

namespace attnmux {

class ATTNMUX_API PlanCache {
 public:
  // Ranks that share plans must have the same cost model: with kAutoStages it decides.
  explicit PlanCache(CostModel model = {}, size_t capacity = 32);
  ~PlanCache();

  // The same plan for an equal mask, the same options, heads and dtype. Passes of kAutoStages are chosen as
  // choose_overlap says. Throws as DistAttnPlan does.
  std::shared_ptr<const DistAttnPlan> plan(const AttnMaskSpec& mask, const DispatchOptions& dispatch,
                                           const OverlapOptions& overlap, const AttentionSize& shape);
  int64_t hits() const;
  int64_t misses() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace attnmux
