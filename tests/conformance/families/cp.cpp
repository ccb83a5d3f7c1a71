// The backend inside distributed attention: ranks as threads of this process, each with its share of the tokens; parts
// of the mask in stages, merged by lse; gradients sent home and summed. Compared with the truth of the whole mask.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <chrono>
#include <cstring>
#include <functional>

#include "attnmux/distributed_attend.h"
#include "attnmux/error.h"
#include "conformance/families.h"
#include "conformance/memory_watch.h"

namespace attnmux::conformance {
namespace {

constexpr std::chrono::seconds kDeadline{20};

// Rows of these ranges, one behind another, as a leaf.
at::Tensor take(const at::Tensor& whole, const std::vector<Range>& ranges) {
  std::vector<at::Tensor> rows = {whole.narrow(0, 0, 0)};
  for (const Range& range : ranges) rows.push_back(whole.narrow(0, range.begin, range.size()));
  return at::cat(rows);
}

// The reverse, into memory that all ranks share: each writes rows of its own.
void put(const at::Tensor& rows, const std::vector<Range>& ranges, const at::Tensor& whole) {
  int64_t first = 0;
  for (const Range& range : ranges) {
    whole.narrow(0, range.begin, range.size()).copy_(rows.narrow(0, first, range.size()));
    first += range.size();
  }
}

using BackendOfRank = std::function<std::shared_ptr<const AttentionBackend>(int32_t rank)>;

// Forward and backward as a training step runs them, on every rank. Throws what a rank threw.
Results attend_over_ranks(const Setup& setup, const BackendOfRank& backend) {
  const Case& c = setup.c;
  const DistAttnPlan plan(setup.mask.spec, {.cp = c.cp, .chunk_size = c.chunk}, {.forward = {.stages = c.stages}});
  const at::TensorOptions wide = at::TensorOptions().dtype(c.dt == DType::kFloat64 ? at::kDouble : at::kFloat);
  const Results whole{.out = at::empty({c.sq, c.hq, c.head_dim_v()}, setup.in.q.options()),
                      .lse = at::empty({c.sq, c.hq}, wide),
                      .dq = at::empty_like(setup.in.q),
                      .dk = at::empty_like(setup.in.k),
                      .dv = at::empty_like(setup.in.v)};
  PreparedCache cache;
  run_threads_group(static_cast<int32_t>(c.cp), {.deadline = kDeadline}, [&](CpGroup& group) {
    const c10::AutoGradMode record(true);
    const AgreedPlan agreed(group, plan);
    const std::vector<Range> queries = plan.dispatch().ranges_of(group.rank());
    const std::vector<Range> keys = plan.dispatch().key_ranges_of(group.rank());
    const at::Tensor q = take(setup.in.q, queries).requires_grad_();
    const at::Tensor k = take(setup.in.k, keys).requires_grad_(), v = take(setup.in.v, keys).requires_grad_();
    const AttendResult mine =
        distributed_attend(backend(group.rank()), agreed, q, k, v,
                           {.softmax_scale = setup.in.softmax_scale, .deterministic = c.check == "determinism"}, cache);
    mine.out.backward(take(setup.in.dout, queries));
    group.barrier();  // nobody is done before all are: a rank's failure reaches those, too, that need nothing of it
    put(mine.out.detach(), queries, whole.out);
    put(mine.lse, queries, whole.lse);
    put(q.grad(), queries, whole.dq);
    put(k.grad(), keys, whole.dk);
    put(v.grad(), keys, whole.dv);
  });
  return whole;
}

std::optional<Results> attend_over_ranks(const Subject& subject, const Setup& setup, CaseResult& result) {
  try {
    const Results got = attend_over_ranks(setup, [&](int32_t) { return subject.backend; });
    if (const std::string broken = broken_guards(); !broken.empty()) result.fail(Check::kGuard, broken);
    return got;
  } catch (const Error& error) {
    result.fail(Check::kRefusedAfterYes, "query() took the parts of " + std::to_string(setup.c.cp) +
                                             " ranks, a call of a part failed: " + error.what());
    return std::nullopt;
  }
}

void determinism(const Subject& subject, const Setup& setup, CaseResult& result) {
  std::optional<Results> first;
  for (int run = 0; run < 3; ++run) {
    const std::optional<Results> got = attend_over_ranks(subject, setup, result);
    if (!got) return;
    if (!first) first = got;
    for (const auto& [name, a, b] : {std::tuple{"out", first->out, got->out},
                                     {"lse", first->lse, got->lse},
                                     {"dq", first->dq, got->dq},
                                     {"dk", first->dk, got->dk},
                                     {"dv", first->dv, got->dv}}) {
      if (std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) != 0) {
        result.fail(Check::kDeterminism, std::string(name) + " of run " + std::to_string(run) + " has other bits");
      }
    }
  }
}

constexpr char kInjected[] = "injected by the suite";

// Another backend's calls, but for one that fails.
class Failing final : public AttentionBackend {
 public:
  Failing(std::shared_ptr<const AttentionBackend> inner, bool in_backward)
      : inner_(std::move(inner)), in_backward_(in_backward) {}
  BackendInfo info() const override { return inner_->info(); }
  Support query(const AttentionRequest& request) const noexcept override { return inner_->query(request); }
  std::shared_ptr<const Prepared> prepare(const AttnMaskSpec& mask, const AttentionShape& shape) const override {
    return inner_->prepare(mask, shape);
  }
  ForwardResult forward(const Prepared& prepared, const ForwardArgs& args) const override {
    if (!in_backward_) throw Error(ErrorCode::kNonFinite, kInjected);
    return inner_->forward(prepared, args);
  }
  BackwardResult backward(const Prepared&, const BackwardArgs&) const override {
    throw Error(ErrorCode::kNonFinite, kInjected);
  }

 private:
  std::shared_ptr<const AttentionBackend> inner_;
  bool in_backward_;
};

// One rank's call fails: the whole comes to an end that names it, and the backend works as before.
void failure(const Subject& subject, const Setup& setup, CaseResult& result) {
  for (const bool in_backward : {false, true}) {
    const auto failing = std::make_shared<const Failing>(subject.backend, in_backward);
    const auto backend = [&](int32_t rank) -> std::shared_ptr<const AttentionBackend> {
      return rank == 1 ? failing : subject.backend;
    };
    try {
      attend_over_ranks(setup, backend);
      result.suite_error("a rank's call failed and nobody was told");
    } catch (const Error& error) {
      const std::string text = error.what();
      if (text.find(kInjected) == std::string::npos || text.find("rank 1 of ") == std::string::npos) {
        result.suite_error("a rank's call failed, and what was told is: " + text);
      }
    }
  }
  if (const auto got = attend_over_ranks(subject, setup, result)) compare_results(setup, *got, result);
}

}  // namespace

void run_cp(const Subject& subject, const Case& c, CaseResult& result) {
  const Setup setup(c);
  if (!takes(subject, setup, result)) return;
  if (subject.device.is_cuda()) {
    result.suite_error("ranks of one process exchange tensors of the CPU; pass --device cpu");
  } else if (c.check == "determinism") {
    determinism(subject, setup, result);
  } else if (c.check == "failure") {
    failure(subject, setup, result);
  } else if (const auto got = attend_over_ranks(subject, setup, result)) {
    compare_results(setup, *got, result);
  }
}

}  // namespace attnmux::conformance
