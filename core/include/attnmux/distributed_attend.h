// Attention of one sequence over a group of ranks: each brings its own tokens and gets its own rows of the whole mask.
//
//   const AgreedPlan plan(group, DistAttnPlan(mask, {.cp = group.size()}, {.forward = {.stages = 2}}));
//   AttendResult mine = distributed_attend(backend, plan, q, k, v, {}, cache);    // own tokens, in local order
//   mine.out.backward(dout);
//
// Keys and values that a rank lacks arrive in the plan's stages, each under way while what came before it is computed;
// the parts are merged by their lse. Backward fetches them again, in stages of its own (or has kept them, if the plan
// says so), and sends dk and dv home, likewise. Parts are merged and gradients summed in fp32 (fp64 for fp64), each
// result is rounded once.
//
// Collective, backward too: every rank of the group makes the same calls in the same order, those without work
// included, each from one thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "attnmux/attend.h"
#include "attnmux/cp_group.h"
#include "attnmux/dist_attn_plan.h"
#include "attnmux/export.h"

namespace attnmux {

// A plan that all ranks of a group have derived alike: exchanges by different plans would hang or mix up tokens. Cheap
// to copy. The group outlives it and the autograd nodes of calls with it.
class ATTNMUX_API AgreedPlan {
 public:
  // Collective: compares the plan's hash, once for all calls with this object. Throws on every rank
  // Error(kRankDisagreement), naming ranks and hashes; Error(kInvalidArgument) for a plan of another number of ranks.
  AgreedPlan(CpGroup& group, DistAttnPlan plan);

  CpGroup& group() const { return *group_; }
  const DistAttnPlan& plan() const { return plan_; }
  const RankPlan& mine() const { return *mine_; }

 private:
  CpGroup* group_;
  DistAttnPlan plan_;
  std::shared_ptr<const RankPlan> mine_;
};

// With one rank it is attend() itself. Errors: those of attend(), where the backend is asked about the masks of parts:
// other numbers of keys than queries, rows without keys, any union of slices; and those of the group. Options name the
// global mask's call: deterministic, softmax_scale and layout mean what they mean there.
ATTNMUX_API AttendResult distributed_attend(const std::shared_ptr<const AttentionBackend>& backend,
                                            const AgreedPlan& plan,
                                            const at::Tensor& q,  // [own queries, heads_q, head_dim]
                                            const at::Tensor& k,  // [own keys, heads_kv, head_dim]
                                            const at::Tensor& v,  // [own keys, heads_kv, head_dim_v]
                                            const AttendOptions& options, PreparedCache& cache);

// The same on ranks of this process, one thread each: whole tensors in, whole tensors out, in global order. Gradients
// where `dout` is defined.
struct RanksInput {
  at::Tensor q;     // [total_q, heads_q, head_dim]
  at::Tensor k;     // [total_k, heads_kv, head_dim]
  at::Tensor v;     // [total_k, heads_kv, head_dim_v]
  at::Tensor dout;  // [total_q, heads_q, head_dim_v] or undefined
};
struct RanksResult {
  at::Tensor out, lse;    // as attend() returns them
  at::Tensor dq, dk, dv;  // undefined without dout
};
ATTNMUX_API RanksResult attend_on_ranks(const std::shared_ptr<const AttentionBackend>& backend,
                                        const DistAttnPlan& plan, const RanksInput& input, const AttendOptions& options,
                                        const CpGroupOptions& group);

}  // namespace attnmux
