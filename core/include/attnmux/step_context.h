// One training or inference step: the masks it is armed with, and the proof that every module consumed its own.
//
//   StepContext step(table, cache, {.training = true});
//   step.arm("language", mask);
//   Tensor logits = model.forward(batch, step);      // each attention module calls step.attend(path, q, k, v, ...)
//   loss.backward();
//   step.finish();                                   // planned == executed for every module, or an error
//
// Over a context-parallel group each rank has a step of its own, armed with the group's plan of the whole mask
// (step.arm("language", AgreedPlan(group, plan))); q, k and v are then this rank's tokens.
//
// An argument of forward(), never a global: a mask cannot leak into the next step, nor be dropped by a module that took
// another path. One step, one thread at a time; backward may run on autograd's thread. A step that is destroyed
// unfinished, without an exception in flight, logs an error.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>

#include "attnmux/attend.h"
#include "attnmux/export.h"
#include "attnmux/ledger.h"
#include "attnmux/selection.h"

namespace attnmux {

class AgreedPlan;  // distributed_attend.h
class Trace;       // trace.h

struct StepOptions {
  bool training = false;       // each module's backward is planned, too
  int64_t forward_passes = 1;  // planned calls of each module (micro-batches)
  Trace* trace = nullptr;      // gets the spans of a group's attention; outlives the step's graph
  int32_t trace_rank = 0;      // where it shows them
};

class ATTNMUX_API StepContext {
 public:
  StepContext(std::shared_ptr<const SelectionTable> table, std::shared_ptr<PreparedCache> cache,
              const StepOptions& options);
  ~StepContext();
  StepContext(const StepContext&) = delete;
  StepContext& operator=(const StepContext&) = delete;

  // Error(kInvalidArgument) when no module consumes `mask_key` (the known keys are listed) or the key is armed already.
  void arm(const std::string& mask_key, const AttnMaskSpec& mask);
  // The whole mask by its plan: calls with it are collective.
  void arm(const std::string& mask_key, const AgreedPlan& plan);
  // The mask armed for a key; Error(kMaskNotConsumed) when there is none.
  const AttnMaskSpec& mask(const std::string& mask_key) const;

  // Runs the module's chosen backend with the mask armed for it. Error(kOutOfEnvelope) when mask family, dtype, heads,
  // head_dim, device, training or number of ranks lie outside what was planned for the module: never rerouted.
  AttendResult attend(const std::string& module_path, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                      const AttendOptions& options);

  // While alive, forward calls are recomputation for activation checkpointing and are counted apart.
  class ATTNMUX_API Recompute {
   public:
    explicit Recompute(StepContext& step);
    ~Recompute();

   private:
    StepContext& step_;
  };

  // Error(kMaskNotConsumed) naming each module, what was planned and what was executed; Error(kInvalidArgument) if
  // called twice.
  void finish();

  const ExecutionLedger& ledger() const;

 private:
  struct State;
  std::shared_ptr<State> state_;  // shared with autograd nodes, which may outlive the step
};

}  // namespace attnmux
