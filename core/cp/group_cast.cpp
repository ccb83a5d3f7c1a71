#include "attnmux/group_cast.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <numeric>
#include <string>

#include "attnmux/error.h"

namespace attnmux {
namespace {

// Tokens [begin, begin + count) of a tensor.
struct Run {
  int64_t begin = 0;
  int64_t count = 0;
};
using Runs = std::vector<Run>;  // in the order in which they travel

void append(Runs& runs, int64_t begin, int64_t count) {
  if (count == 0) return;
  if (!runs.empty() && runs.back().begin + runs.back().count == begin) {
    runs.back().count += count;
  } else {
    runs.push_back({begin, count});
  }
}

int64_t tokens_of(const Runs& runs) {
  return std::accumulate(runs.begin(), runs.end(), int64_t{0}, [](int64_t sum, const Run& r) { return sum + r.count; });
}

// Where each rank's pieces lie in the caster's input, and in what it receives.
struct Routes {
  std::vector<Runs> in_input;   // [ranks] what rank r gets
  std::vector<Runs> in_output;  // [ranks] what comes from rank r
};

Error bad_args(const std::string& call, const std::string& problem) {
  return Error(ErrorCode::kInvalidArgument, call + ": " + problem);
}

Routes routes_of(const std::string& call, const CpGroup& group, const GroupCastArgs& args) {
  if (args.input_splits.size() != args.dst.size() || args.output_splits.size() != args.src.size()) {
    throw bad_args(call, std::to_string(args.input_splits.size()) + " input splits with " +
                             std::to_string(args.dst.size()) + " lists of destinations, " +
                             std::to_string(args.output_splits.size()) + " output splits with " +
                             std::to_string(args.src.size()) + " sources; give one of each for every piece");
  }
  const auto check_rank = [&](int32_t rank) {
    if (rank < 0 || rank >= group.size()) {
      throw bad_args(call, "rank " + std::to_string(rank) + " in a group of " + std::to_string(group.size()));
    }
  };
  const auto check_count = [&](int64_t count) {
    if (count < 0) throw bad_args(call, "a piece of " + std::to_string(count) + " tokens");
  };
  Routes routes{std::vector<Runs>(group.size()), std::vector<Runs>(group.size())};
  int64_t at = 0;
  for (size_t piece = 0; piece < args.dst.size(); ++piece) {
    const std::vector<int32_t>& ranks = args.dst[piece];
    check_count(args.input_splits[piece]);
    if (std::adjacent_find(ranks.begin(), ranks.end(), std::greater_equal<>()) != ranks.end()) {
      throw bad_args(call, "piece " + std::to_string(piece) + " has destinations that do not ascend");
    }
    for (const int32_t rank : ranks) {
      check_rank(rank);
      append(routes.in_input[rank], at, args.input_splits[piece]);
    }
    at += args.input_splits[piece];
  }
  at = 0;
  for (size_t piece = 0; piece < args.src.size(); ++piece) {
    check_count(args.output_splits[piece]);
    check_rank(args.src[piece]);
    append(routes.in_output[args.src[piece]], at, args.output_splits[piece]);
    at += args.output_splits[piece];
  }
  return routes;
}

void check_tokens(const std::string& call, const at::Tensor& tensor, const std::vector<int64_t>& splits) {
  const int64_t tokens = std::accumulate(splits.begin(), splits.end(), int64_t{0});
  if (!tensor.defined() || tensor.dim() == 0 || tensor.size(0) != tokens) {
    throw bad_args(call, "the splits add up to " + std::to_string(tokens) + " tokens, the tensor has " +
                             (tensor.defined() && tensor.dim() > 0 ? std::to_string(tensor.size(0)) : "none"));
  }
}

at::Tensor tokens_like(const at::Tensor& tensor, int64_t tokens) {
  std::vector<int64_t> sizes = tensor.sizes().vec();
  sizes[0] = tokens;
  return at::empty(sizes, tensor.options().requires_grad(false));
}

at::Tensor run_of(const at::Tensor& tensor, const Run& run) { return tensor.narrow(0, run.begin, run.count); }

// The runs' tokens, one behind another: a view where they are one contiguous run.
at::Tensor packed(const at::Tensor& tensor, const Runs& runs) {
  if (runs.empty()) return {};
  if (runs.size() == 1) return run_of(tensor, runs[0]).contiguous();
  std::vector<at::Tensor> pieces;
  for (const Run& run : runs) pieces.push_back(run_of(tensor, run));
  return at::cat(pieces);
}

// Calls with each run and the tokens that arrived for it.
template <class Function>
void for_each_run(const at::Tensor& arrived, const Runs& runs, const Function& function) {
  int64_t at = 0;
  for (const Run& run : runs) {
    function(run, arrived.narrow(0, at, run.count));
    at += run.count;
  }
}

bool is_reduced(at::ScalarType dtype) { return dtype == at::kBFloat16 || dtype == at::kHalf; }

template <class State>
std::unique_ptr<Work> work_of(std::shared_ptr<State>& state, const char* call) {
  if (state == nullptr || state->work == nullptr) {
    throw Error(ErrorCode::kInvalidArgument, std::string(call) + ": its result was taken before; wait for it once");
  }
  return std::move(state->work);
}

}  // namespace

// --- group_cast ---

struct GroupCastResult::State {
  at::Tensor output;
  std::vector<Runs> runs;           // [ranks] of what arrives in `arrived`
  std::vector<at::Tensor> arrived;  // [ranks] undefined: it arrives in the output itself
  std::unique_ptr<Work> work;
};

GroupCastResult group_cast(CpGroup& group, const GroupCastArgs& args, const at::Tensor& input) {
  const at::NoGradGuard no_grad;
  Routes routes = routes_of("group_cast", group, args);
  check_tokens("group_cast", input, args.input_splits);
  auto state = std::make_shared<GroupCastResult::State>();
  const at::Tensor from = input.detach();
  state->output = tokens_like(from, args.tokens_received());
  state->arrived.resize(group.size());
  std::vector<at::Tensor> send, receive;
  for (int32_t rank = 0; rank < group.size(); ++rank) {
    send.push_back(packed(from, routes.in_input[rank]));
    const Runs& runs = routes.in_output[rank];
    if (runs.size() > 1) state->arrived[rank] = tokens_like(from, tokens_of(runs));
    receive.push_back(runs.size() == 1 ? run_of(state->output, runs[0]) : state->arrived[rank]);
  }
  state->runs = std::move(routes.in_output);
  state->work = group.exchange(std::move(send), std::move(receive));
  return GroupCastResult(std::move(state));
}

at::Tensor GroupCastResult::wait() {
  const at::NoGradGuard no_grad;
  work_of(state_, "group_cast")->wait();
  for (size_t rank = 0; rank < state_->runs.size(); ++rank) {
    if (!state_->arrived[rank].defined()) continue;
    for_each_run(state_->arrived[rank], state_->runs[rank],
                 [&](const Run& run, const at::Tensor& tokens) { run_of(state_->output, run).copy_(tokens); });
    state_->arrived[rank].reset();
  }
  return std::move(state_->output);
}

// --- group_reduce ---

struct GroupReduceResult::State {
  std::vector<int64_t> input_splits;
  std::vector<Runs> runs;           // [ranks] where in the target that rank's tokens are added
  std::vector<at::Tensor> arrived;  // [ranks]
  std::unique_ptr<Work> work;
};

GroupReduceResult group_reduce(CpGroup& group, const GroupCastArgs& args, const at::Tensor& input) {
  const at::NoGradGuard no_grad;
  Routes routes = routes_of("group_reduce", group, args);
  check_tokens("group_reduce", input, args.output_splits);
  auto state = std::make_shared<GroupReduceResult::State>();
  const at::Tensor from = input.detach();
  std::vector<at::Tensor> send;
  for (int32_t rank = 0; rank < group.size(); ++rank) {
    send.push_back(packed(from, routes.in_output[rank]));
    const Runs& runs = routes.in_input[rank];
    state->arrived.push_back(runs.empty() ? at::Tensor() : tokens_like(from, tokens_of(runs)));
  }
  state->input_splits = args.input_splits;
  state->runs = std::move(routes.in_input);
  state->work = group.exchange(std::move(send), state->arrived);
  return GroupReduceResult(std::move(state));
}

void GroupReduceResult::wait_and_add(at::Tensor& into) {
  const at::NoGradGuard no_grad;
  work_of(state_, "group_reduce")->wait();
  check_tokens("group_reduce", into, state_->input_splits);
  const at::Tensor sum = is_reduced(into.scalar_type()) ? into.detach().to(at::kFloat) : into.detach();
  for (size_t rank = 0; rank < state_->runs.size(); ++rank) {
    for_each_run(state_->arrived[rank], state_->runs[rank],
                 [&](const Run& run, const at::Tensor& tokens) { run_of(sum, run).add_(tokens); });
  }
  state_->arrived.clear();
  if (is_reduced(into.scalar_type())) into.detach().copy_(sum);
}

}  // namespace attnmux
