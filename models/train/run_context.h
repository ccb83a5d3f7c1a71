// What every forward pass of a run shares, whether it trains, evaluates or looks for a value that is not finite.
#pragma once

#include <memory>

#include "attnmux/attend.h"
#include "attnmux/plan_cache.h"
#include "attnmux/selection.h"
#include "attnmux/trace.h"
#include "models/data/llm_batch.h"
#include "models/nn/causal_lm.h"
#include "models/train/device_mesh.h"

namespace attnmux {

struct RunContext {
  const CausalLm& model;
  DeviceMesh mesh;
  std::shared_ptr<const SelectionTable> table;
  std::shared_ptr<PreparedCache> cache;
  std::shared_ptr<PlanCache> plans;  // ranks of one process may share it
  LlmBatchOptions sharding;
  Trace* trace = nullptr;  // gets the spans of training steps
};

}  // namespace attnmux
