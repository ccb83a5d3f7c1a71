// How one mask is computed by a group of ranks: who owns what, who sends what when, and the mask of each part.
//
//   DistAttnPlan plan(mask, {.cp = 4}, {.forward = {.stages = 2}});
//   std::shared_ptr<const RankPlan> mine = plan.rank(group.rank());
//   mine->host.mask;                 // own queries that attend own keys x these, local numbers
//   mine->stages[0].cast;            // the first exchange
//   mine->stages[0].mask;            // own queries that attend keys received in it x these
//
// A function of mask and options alone: no collective, the same on every rank; ranks compare hash() before the first
// exchange. Immutable; safe from any thread. Remote tokens arrive exactly once: no token is sent twice to a rank.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "attnmux/dispatch_plan.h"
#include "attnmux/export.h"
#include "attnmux/group_cast.h"
#include "attnmux/hash.h"
#include "attnmux/mask.h"

namespace attnmux {

inline constexpr int64_t kMostStages = 1024;

// Remote tokens are spread over exchanges so that each of them is a sample of all: every stretch of them in it, by its
// share, and no sender asked by all ranks at once.
struct StageOptions {
  int64_t stages = 1;  // exchanges; at most kMostStages
  double growth = 1;   // a stage's tokens / those of the stage before, from 1/8 to 8
  friend bool operator==(const StageOptions&, const StageOptions&) = default;
};

// How exchanges and attention go side by side. The same on every rank.
struct OverlapOptions {
  StageOptions forward = {};
  StageOptions backward = forward;
  // Keys and values that arrived in forward stay until backward, which then receives none: less traffic for the memory
  // of remote_k in each layer. REQUIRES: backward == forward, since kept keys lie as they arrived.
  bool keep_remote_keys = false;
  friend bool operator==(const OverlapOptions&, const OverlapOptions&) = default;
};

enum class Pass : uint8_t { kForward, kBackward };

// Some keys and those own queries that attend any of them; both numbered from 0 in local order.
struct PartPlan {
  std::vector<Range> keys;  // global tokens, ascending
  std::vector<Range> rows;  // of own queries, in local numbers, ascending
  AttnMaskSpec mask;        // [rows, keys]
};

// Its keys arrive by `cast`.
struct StagePlan : PartPlan {
  GroupCastArgs cast;
};

struct RankPlan {
  int32_t rank = 0;
  std::vector<Range> queries;   // own global tokens in local order
  std::vector<Range> remote_k;  // keys that own queries attend and others own
  PartPlan host;
  GroupCastArgs cast;                           // all of remote_k in one exchange: what the stages add up to
  std::vector<StagePlan> stages = {};           // none where no rank has remote keys
  std::vector<StagePlan> backward_stages = {};  // where backward has its own; else it takes those of forward
  const std::vector<StagePlan>& of(Pass pass) const {
    return pass == Pass::kForward || backward_stages.empty() ? stages : backward_stages;
  }
};

// The size of a rank's parts, without their masks.
struct StageWork {
  int64_t area = 0;  // attended pairs
  int64_t rows = 0;  // queries with one at least
  int64_t tokens_received = 0;
  int64_t tokens_sent = 0;  // a token counts once for each rank that gets it
};
struct RankWork {
  int64_t host_area = 0;
  int64_t host_rows = 0;
  int64_t host_keys = 0;
  std::vector<StageWork> stages;
  std::vector<StageWork> backward_stages = {};  // where backward has its own
  bool keeps_remote_keys = false;
  const std::vector<StageWork>& of(Pass pass) const {
    return pass == Pass::kForward || backward_stages.empty() ? stages : backward_stages;
  }
};

class ATTNMUX_API DistAttnPlan {
 public:
  DistAttnPlan(const AttnMaskSpec& mask, const DispatchOptions& dispatch, const OverlapOptions& overlap);

  // Another mask over the same tokens, which stay where this plan puts them: e.g. that of layers with a window. The
  // same overlap. Throws Error(kInvalidArgument) for a mask of other totals.
  DistAttnPlan with_mask(const AttnMaskSpec& mask) const;

  const AttnMaskSpec& mask() const;
  const DispatchPlan& dispatch() const;
  int64_t stages(Pass pass = Pass::kForward) const;
  const OverlapOptions& overlap() const;  // as asked for; stages() is 0 where no rank has remote keys
  // Derived when first asked for, then kept.
  std::shared_ptr<const RankPlan> rank(int32_t rank) const;
  std::vector<RankWork> work() const;  // of all ranks; for thousands of them a matter of milliseconds
  int64_t tokens_moved() const;        // over all ranks, each time that keys are exchanged
  int64_t redundant_tokens() const;    // counted from the exchanges' arguments; 0
  Hash128 hash() const;                // of mask, options and dispatch

 private:
  struct State;
  explicit DistAttnPlan(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

}  // namespace attnmux
