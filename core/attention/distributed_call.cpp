#include "distributed_call.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <optional>
#include <utility>

#include "lse_merge.h"

namespace attnmux {
namespace {

// A sum of parts' gradients of q in the wide dtype; one part of all rows alone stays as it is.
class GradientSum {
 public:
  explicit GradientSum(const at::Tensor& q) : q_(q) {}
  void add(const at::Tensor& part, const PartRows& rows) {
    if (!sum_.defined() && rows.all()) {
      sum_ = part;
      return;
    }
    const at::ScalarType wide = wide_dtype(q_.scalar_type());
    sum_ = sum_.defined() ? sum_.to(wide) : at::zeros_like(q_, wide);
    rows.change(sum_, [&](const at::Tensor& sum) { sum.add_(part); });
  }
  at::Tensor finish() const { return sum_.defined() ? sum_.to(q_.scalar_type()) : at::zeros_like(q_); }

 private:
  at::Tensor q_, sum_;
};

}  // namespace

DistributedCall::DistributedCall(BackendCall call, AgreedPlan plan, const at::Tensor& q, const at::Tensor& k,
                                 const at::Tensor& v, PreparedCache& cache, const RankTrace& trace)
    : call_(std::move(call)), plan_(std::move(plan)), trace_(trace) {
  const auto part = [&](std::string name, const PartPlan& plan) -> Part {
    return {std::move(name), PartRows(plan.rows, q.size(0), q.device()),
            plan.rows.empty() ? nullptr : call_.prepare(cache, plan.mask, q, k, v)};
  };
  const auto parts = [&](const std::vector<StagePlan>& stages) {
    std::vector<Part> parts;
    for (const StagePlan& stage : stages) parts.push_back(part("stage " + std::to_string(parts.size()), stage));
    return parts;
  };
  const RankPlan& mine = plan_.mine();
  host_ = part("host", mine.host);
  forward_stages_ = parts(mine.stages);
  backward_stages_ = mine.backward_stages.empty() ? forward_stages_ : parts(mine.backward_stages);
}

ForwardResult DistributedCall::forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                       std::vector<KeysAndValues>* arrived) const {
  const at::NoGradGuard no_grad;
  RemoteKeys remote(plan_.group(), plan_.mine().of(Pass::kForward), {k, v});
  LseMerge merge(q, v.size(2));
  const auto compute = [&](const Part& part, const KeysAndValues& keys) {
    if (!part.prepared) return;
    const Trace::Scope span = trace_.compute("forward " + part.name);
    merge.add(call_.forward(*part.prepared, part.rows.of(q), keys.k, keys.v), part.rows);
  };
  compute(host_, {k, v});
  for (const Part& stage : forward_stages_) {
    const KeysAndValues keys = remote.next();
    if (arrived) arrived->push_back(keys);
    compute(stage, keys);
  }
  return merge.finish();
}

BackwardResult DistributedCall::backward(const BackwardArgs& args, const std::vector<KeysAndValues>& kept) const {
  const at::NoGradGuard no_grad;
  const std::vector<StagePlan>& stages = plan_.mine().of(Pass::kBackward);
  const at::ScalarType wide = wide_dtype(args.q.scalar_type());
  const KeysAndValues own{args.k, args.v};
  std::optional<RemoteKeys> remote;
  if (kept.empty()) remote.emplace(plan_.group(), stages, own);
  GradientSum dq(args.q);

  // Gradients of one part's keys, packed to be sent; zeros where this rank attends none of them.
  const auto compute = [&](const Part& part, const KeysAndValues& keys) {
    if (!part.prepared) return pack({at::zeros_like(keys.k), at::zeros_like(keys.v)}, wide);
    const Trace::Scope span = trace_.compute("backward " + part.name);
    BackwardArgs of_part = args;
    of_part.k = keys.k;
    of_part.v = keys.v;
    for (at::Tensor* whole : {&of_part.q, &of_part.out, &of_part.lse, &of_part.dout}) *whole = part.rows.of(*whole);
    const BackwardResult result = call_.backward(*part.prepared, of_part);
    dq.add(result.dq, part.rows);
    return pack({result.dk, result.dv}, wide);
  };

  RemoteGradients gradients(plan_.group(), compute(host_, own));
  for (size_t stage = 0; stage < stages.size(); ++stage) {
    gradients.send(stages[stage].cast, compute(backward_stages_[stage], remote ? remote->next() : kept[stage]));
  }
  const KeysAndValues sum = unpack(gradients.finish(), own);
  return {.dq = dq.finish(),
          .dk = sum.k.to(args.k.scalar_type()).contiguous(),
          .dv = sum.v.to(args.v.scalar_type()).contiguous()};
}

}  // namespace attnmux
