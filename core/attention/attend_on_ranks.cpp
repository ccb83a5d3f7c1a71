#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <string>

#include "attnmux/distributed_attend.h"
#include "attnmux/error.h"
#include "attnmux/ranges.h"
#include "attnmux/selection.h"
#include "call_checks.h"
#include "distributed_call.h"
#include "lse_merge.h"

namespace attnmux {
namespace {

// Rows of these ranges, one behind another; zeros for padding, which lies behind the last row. [count, ...]
at::Tensor take(const at::Tensor& whole, const std::vector<Range>& ranges) {
  std::vector<int64_t> padding = whole.sizes().vec();
  padding[0] = count_tokens(ranges);
  std::vector<at::Tensor> rows;
  for (const Range& range : intersect(ranges, {{0, whole.size(0)}})) {
    rows.push_back(whole.narrow(0, range.begin, range.size()));
    padding[0] -= range.size();
  }
  rows.push_back(at::zeros(padding, whole.options()));
  return at::cat(rows);
}

// The reverse, into memory that all ranks share: each writes rows of its own.
void put(const at::Tensor& rows, const std::vector<Range>& ranges, const at::Tensor& whole) {
  int64_t first = 0;
  for (const Range& range : intersect(ranges, {{0, whole.size(0)}})) {
    whole.narrow(0, range.begin, range.size()).copy_(rows.narrow(0, first, range.size()));
    first += range.size();
  }
}

void check(const AttentionBackend& backend, const DistAttnPlan& plan, const RanksInput& input,
           const AttendOptions& options) {
  if (options.layout != Layout::kTHD) {
    throw Error(ErrorCode::kInvalidArgument, "attention on ranks of this process takes layout thd");
  }
  check_inputs(tokens_of(plan.mask()), input.q, input.k, input.v, options);
  const std::vector<int64_t> out{input.q.size(0), input.q.size(1), input.v.size(2)};
  if (input.dout.defined() && (input.dout.sizes() != out || input.dout.scalar_type() != input.q.scalar_type())) {
    throw Error(ErrorCode::kInvalidArgument, "dout has shape " + c10::str(input.dout.sizes()) + " and dtype " +
                                                 c10::toString(input.dout.scalar_type()) + ", out has " +
                                                 c10::str(at::IntArrayRef(out)) + " and " +
                                                 c10::toString(input.q.scalar_type()) + "; they must agree");
  }
  if (plan.dispatch().size() > 1 && !input.q.is_cpu()) {
    throw Error(ErrorCode::kUnsupported, "ranks of this process exchange tensors of the CPU, q is on " +
                                             input.q.device().str() + "; take one rank there, or the CPU");
  }
  AttentionRequest request = request_for(facts_of(plan.mask()), input.q, input.k, input.v, options);
  request.cp_size = plan.dispatch().size();
  request.training = input.dout.defined();
  require_support(backend, request_of_parts(request), options.module);
}

}  // namespace

RanksResult attend_on_ranks(const std::shared_ptr<const AttentionBackend>& backend, const DistAttnPlan& plan,
                            const RanksInput& input, const AttendOptions& options, const CpGroupOptions& group) {
  check(*backend, plan, input, options);
  const bool backward = input.dout.defined();
  const at::NoGradGuard no_grad;
  const int64_t tokens = input.q.size(0), heads = input.q.size(1);
  RanksResult whole{.out = at::empty({tokens, heads, input.v.size(2)}, input.q.options()),
                    .lse = at::empty({tokens, heads}, input.q.options().dtype(wide_dtype(input.q.scalar_type())))};
  if (backward)
    whole.dq = at::empty_like(input.q), whole.dk = at::empty_like(input.k), whole.dv = at::empty_like(input.v);

  PreparedCache cache;
  run_threads_group(plan.dispatch().size(), group, [&](CpGroup& rank) {
    const AgreedPlan agreed(rank, plan);
    const std::vector<Range> queries = plan.dispatch().ranges_of(rank.rank());
    const std::vector<Range> keys = plan.dispatch().key_ranges_of(rank.rank());
    const at::Tensor q = take(input.q, queries), k = take(input.k, keys), v = take(input.v, keys);
    const BackendCall call(backend, q, options);
    const DistributedCall distributed(call, agreed, q, k, v, cache, {});
    std::vector<KeysAndValues> kept;
    const ForwardResult forward =
        distributed.forward(q, k, v, backward && distributed.keeps_remote_keys() ? &kept : nullptr);
    put(forward.out, queries, whole.out);
    put(forward.lse, queries, whole.lse);
    if (!backward) return;
    const BackwardResult gradients = distributed.backward({.dout = take(input.dout, queries),
                                                           .q = q,
                                                           .k = k,
                                                           .v = v,
                                                           .out = forward.out,
                                                           .lse = forward.lse,
                                                           .softmax_scale = call.softmax_scale,
                                                           .deterministic = call.deterministic},
                                                          kept);
    put(gradients.dq, queries, whole.dq);
    put(gradients.dk, keys, whole.dk);
    put(gradients.dv, keys, whole.dv);
  });
  return whole;
}

}  // namespace attnmux
