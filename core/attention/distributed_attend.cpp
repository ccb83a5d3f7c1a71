#include "attnmux/distributed_attend.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <string>

#include "attend_call.h"
#include "attend_node.h"
#include "attnmux/agreement.h"
#include "attnmux/error.h"
#include "attnmux/ranges.h"
#include "attnmux/selection.h"
#include "call_checks.h"
#include "distributed_call.h"

namespace attnmux {
namespace {

AttendResult run_thd(const std::shared_ptr<const AttentionBackend>& backend, const AgreedPlan& plan,
                     const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttendOptions& options,
                     PreparedCache& cache, const RankTrace& trace) {
  const BackendCall call(backend, q, options);
  const auto distributed = std::make_shared<const DistributedCall>(call, plan, q, k, v, cache, trace);
  const bool recorded = wants_gradient(q, k, v);
  std::vector<KeysAndValues> kept;
  ForwardResult result = distributed->forward(q, k, v, recorded && distributed->keeps_remote_keys() ? &kept : nullptr);
  if (recorded) {
    record({.call = call,
            .backward = [distributed, kept](const BackwardArgs& args) { return distributed->backward(args, kept); },
            .on_backward = options.on_backward,
            .collective = true},
           q, k, v, result);
  }
  return {result.out, result.lse};
}

}  // namespace

AgreedPlan::AgreedPlan(CpGroup& group, DistAttnPlan plan) : group_(&group), plan_(std::move(plan)) {
  if (plan_.dispatch().size() != group.size()) {
    throw Error(ErrorCode::kInvalidArgument, "a plan for " + std::to_string(plan_.dispatch().size()) +
                                                 " ranks in a group of " + std::to_string(group.size()) +
                                                 "; plan with DispatchOptions::cp = the group's size");
  }
  expect_agreement(group, plan_.hash(), "the attention plan",
                   "Give every rank the same mask, dispatch and stage options");
  mine_ = plan_.rank(group.rank());
}

ExpectedTokens tokens_of(const AgreedPlan& plan) {
  const RankPlan& mine = plan.mine();
  return {count_tokens(mine.queries), count_tokens(mine.host.keys), "what the plan gives this rank",
          "what the plan gives this rank"};
}

AttentionRequest request_for(const AgreedPlan& plan, const MaskFacts& facts, const at::Tensor& q, const at::Tensor& k,
                             const at::Tensor& v, const AttendOptions& options) {
  AttentionRequest request = request_for(facts, q, k, v, options);
  request.cp_size = plan.group().size();
  request.max_tokens = std::max(plan.plan().mask().total_q(), plan.plan().mask().total_k());
  return request;
}

AttendResult run_distributed(const std::shared_ptr<const AttentionBackend>& backend, const AgreedPlan& plan,
                             const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const AttendOptions& options, PreparedCache& cache, const RankTrace& trace) {
  if (plan.group().size() == 1) return run_attention(backend, plan.plan().mask(), q, k, v, options, cache);
  if (options.layout == Layout::kTHD) return run_thd(backend, plan, q, k, v, options, cache, trace);
  AttendResult result = run_thd(backend, plan, q.select(0, 0), k.select(0, 0), v.select(0, 0), options, cache, trace);
  result.out = result.out.unsqueeze(0);
  return result;
}

AttendResult distributed_attend(const std::shared_ptr<const AttentionBackend>& backend, const AgreedPlan& plan,
                                const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const AttendOptions& options, PreparedCache& cache) {
  check_inputs(tokens_of(plan), q, k, v, options);
  const AttentionRequest request = request_for(plan, facts_of(plan.plan().mask()), q, k, v, options);
  require_support(*backend, request_of_parts(request), options.module);
  return run_distributed(backend, plan, q, k, v, options, cache, {});
}

}  // namespace attnmux
