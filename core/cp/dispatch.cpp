#include "attnmux/dispatch.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <algorithm>
#include <numeric>
#include <string>

#include "attnmux/error.h"
#include "attnmux/group_cast.h"
#include "attnmux/ranges.h"

namespace attnmux {
namespace {

using torch::autograd::variable_list;

// A rank's tokens without its padding, which is the tail of the sequence.
std::vector<Range> real_ranges(const DispatchPlan& plan, int32_t rank) {
  std::vector<Range> ranges = plan.ranges_of(rank);
  for (Range& range : ranges) range.end = std::min(range.end, plan.total_q);
  std::erase_if(ranges, [](const Range& range) { return range.begin >= range.end; });
  return ranges;
}

at::Tensor with_tokens(const at::Tensor& like, int64_t tokens) {
  std::vector<int64_t> sizes = like.sizes().vec();
  sizes[0] = tokens;
  return at::empty(sizes, like.options().requires_grad(false));
}

void check_tokens(const char* call, const at::Tensor& tensor, int64_t tokens, const std::string& what) {
  if (tensor.defined() && tensor.dim() > 0 && tensor.size(0) == tokens) return;
  throw Error(ErrorCode::kInvalidArgument,
              std::string(call) + ": " + what + " has " + std::to_string(tokens) + " tokens, the tensor " +
                  (tensor.defined() && tensor.dim() > 0 ? std::to_string(tensor.size(0)) : "none") +
                  "; its first dimension counts tokens");
}

void refuse_second_derivative(const char* call) {
  // The engine turns grad mode on in a backward that shall itself be differentiable.
  if (!c10::GradMode::is_enabled()) return;
  throw Error(ErrorCode::kInvalidArgument, std::string(call) +
                                               ": backward was called with create_graph = true, but there is no "
                                               "second derivative here; call it with create_graph = false");
}

// Makes `node` the history of `out`.
template <class BackwardNode, class... Args>
void record(at::Tensor& out, const at::Tensor& input, Args&&... args) {
  std::shared_ptr<torch::autograd::Node> node(
      new BackwardNode(torch::autograd::collect_next_edges(input), std::forward<Args>(args)...),
      torch::autograd::deleteNode);
  torch::autograd::set_history(out, node);
}

struct DispatchBackward : public torch::autograd::Node {
  DispatchBackward(torch::autograd::edge_list edges, std::vector<Range> ranges, int64_t total)
      : Node(std::move(edges)), ranges_(std::move(ranges)), total_(total) {}

  std::string name() const override { return "AttnmuxDispatchBackward"; }

  variable_list apply(variable_list&& grads) override {
    refuse_second_derivative("dispatch");
    if (!grads[0].defined()) return {at::Tensor()};
    at::Tensor all = with_tokens(grads[0], total_).zero_();
    int64_t at = 0;
    for (const Range& range : ranges_) {
      all.narrow(0, range.begin, range.size()).copy_(grads[0].narrow(0, at, range.size()));
      at += range.size();
    }
    return {all};
  }

 private:
  std::vector<Range> ranges_;
  int64_t total_;
};

struct GatherBackward : public torch::autograd::Node {
  GatherBackward(torch::autograd::edge_list edges, CpGroup& group, GroupCastArgs args, const at::Tensor& local,
                 int64_t total)
      : Node(std::move(edges)),
        group_(group),
        args_(std::move(args)),
        sizes_(local.sizes().vec()),
        options_(local.options().requires_grad(false)),
        total_(total) {}

  std::string name() const override { return "AttnmuxGatherBackward"; }

  variable_list apply(variable_list&& grads) override {
    refuse_second_derivative("undispatch and gather_tokens");
    at::Tensor mine = at::zeros(sizes_, options_);
    // A rank whose loss does not depend on the whole tensor takes part all the same: the others wait for it.
    const at::Tensor grad = grads[0].defined() ? grads[0] : with_tokens(mine, total_).zero_();
    group_reduce(group_, args_, grad).wait_and_add(mine);
    return {mine};
  }

 private:
  CpGroup& group_;
  GroupCastArgs args_;
  std::vector<int64_t> sizes_;  // of the local tensor
  at::TensorOptions options_;
  int64_t total_;
};

// Every rank sends all of its tokens to every rank, itself included; the pieces arrive in global order. What `local`
// holds beyond its owner's ranges is padding and stays.
GroupCastArgs to_everybody(const std::vector<std::vector<Range>>& owned, int32_t rank, int64_t local_tokens) {
  GroupCastArgs args;
  std::vector<int32_t> everybody(owned.size());
  std::iota(everybody.begin(), everybody.end(), 0);
  for (const Range& range : owned[rank]) {
    args.input_splits.push_back(range.size());
    args.dst.push_back(everybody);
  }
  args.input_splits.push_back(local_tokens - count_tokens(owned[rank]));
  args.dst.emplace_back();

  std::vector<std::pair<Range, int32_t>> pieces;
  for (const int32_t owner : everybody) {
    for (const Range& range : owned[owner]) pieces.emplace_back(range, owner);
  }
  std::sort(pieces.begin(), pieces.end(), [](const auto& a, const auto& b) { return a.first.begin < b.first.begin; });
  for (const auto& [range, owner] : pieces) {
    args.output_splits.push_back(range.size());
    args.src.push_back(owner);
  }
  return args;
}

at::Tensor gather(const at::Tensor& local, const std::vector<std::vector<Range>>& owned, CpGroup& group) {
  GroupCastArgs args = to_everybody(owned, group.rank(), local.size(0));
  at::Tensor all = group_cast(group, args, local).wait();
  if (torch::autograd::compute_requires_grad(local)) {
    const int64_t total = all.size(0);
    record<GatherBackward>(all, local, group, std::move(args), local, total);
  }
  return all;
}

}  // namespace

at::Tensor dispatch(const at::Tensor& tokens, const DispatchPlan& plan, int32_t rank, double fill) {
  if (rank < 0 || rank >= plan.size()) {
    throw Error(ErrorCode::kInvalidArgument,
                "dispatch: rank " + std::to_string(rank) + " of a plan for " + std::to_string(plan.size()) + " ranks");
  }
  check_tokens("dispatch", tokens, plan.total_q, "the plan");
  if (plan.size() == 1) return tokens;
  std::vector<Range> ranges = real_ranges(plan, rank);
  at::Tensor mine = with_tokens(tokens, plan.tokens_of(rank));
  {
    const at::NoGradGuard no_grad;
    int64_t at = 0;
    for (const Range& range : ranges) {
      mine.narrow(0, at, range.size()).copy_(tokens.narrow(0, range.begin, range.size()));
      at += range.size();
    }
    mine.narrow(0, at, mine.size(0) - at).fill_(fill);
  }
  if (torch::autograd::compute_requires_grad(tokens)) {
    record<DispatchBackward>(mine, tokens, std::move(ranges), plan.total_q);
  }
  return mine;
}

at::Tensor undispatch(const at::Tensor& local, const DispatchPlan& plan, CpGroup& group) {
  if (group.size() != plan.size()) {
    throw Error(ErrorCode::kInvalidArgument, "undispatch: a plan for " + std::to_string(plan.size()) +
                                                 " ranks in a group of " + std::to_string(group.size()));
  }
  check_tokens("undispatch", local, plan.tokens_of(group.rank()), "rank " + std::to_string(group.rank()));
  if (plan.size() == 1) return local;
  std::vector<std::vector<Range>> owned;
  for (int32_t rank = 0; rank < plan.size(); ++rank) owned.push_back(real_ranges(plan, rank));
  return gather(local, owned, group);
}

at::Tensor gather_tokens(const at::Tensor& local, const std::vector<std::vector<Range>>& owned, CpGroup& group) {
  if (std::ssize(owned) != group.size()) {
    throw Error(ErrorCode::kInvalidArgument, "gather_tokens: tokens of " + std::to_string(owned.size()) +
                                                 " ranks in a group of " + std::to_string(group.size()));
  }
  check_tokens("gather_tokens", local, count_tokens(owned[group.rank()]), "rank " + std::to_string(group.rank()));
  return group.size() == 1 ? local : gather(local, owned, group);
}

}  // namespace attnmux
