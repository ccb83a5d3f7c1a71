// A backend made of plain ATen calls, whose answers and faults a test chooses.
#pragma once

#include <ATen/ATen.h>

#include <atomic>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "attnmux/backend.h"

namespace attnmux::testing {

// The dense mask, [total_q, total_k] of bool.
struct FakePrepared : Prepared {
  at::Tensor allowed;
};

class FakeBackend : public AttentionBackend {
 public:
  explicit FakeBackend(std::string id) : id_(std::move(id)) {}

  // What a test may change before the backend is shared.
  std::function<std::vector<Reason>(const AttentionRequest&)> refuse = [](const AttentionRequest&) {
    return std::vector<Reason>{};
  };
  std::function<void(ForwardResult&)> spoil_forward = [](ForwardResult&) {};
  std::function<void(BackwardResult&)> spoil_backward = [](BackwardResult&) {};
  int32_t auto_priority = 0;

  mutable std::atomic<int> prepares = 0;
  mutable std::atomic<int> forwards = 0;
  mutable std::atomic<int> backwards = 0;
  mutable at::Tensor last_q;     // as the backend saw it
  mutable at::Tensor last_dout;  // as the backend saw it
  mutable bool last_deterministic = false;

  BackendInfo info() const override { return {id_, "1.0", "for tests", auto_priority}; }

  Support query(const AttentionRequest& request) const noexcept override { return {refuse(request)}; }

  std::shared_ptr<const Prepared> prepare(const AttnMaskSpec& mask, const AttentionShape& shape) const override {
    ++prepares;
    auto prepared = std::make_shared<FakePrepared>();
    prepared->allowed = at::zeros({mask.total_q(), mask.total_k()}, at::kBool);
    for (int64_t row = 0; row < mask.total_q(); ++row) {
      for (const Range& keys : mask.keys_of_row(row)) {
        prepared->allowed[row].slice(0, keys.begin, keys.end).fill_(true);
      }
    }
    return prepared;
  }

  ForwardResult forward(const Prepared& prepared, const ForwardArgs& args) const override {
    ++forwards;
    {
      const std::lock_guard lock(mutex_);
      last_q = args.q;
    }
    const at::Tensor lse = logits(prepared, args.q, args.k, args.softmax_scale).logsumexp(-1);
    const at::Tensor p = probabilities(prepared, args.q, args.k, lse, args.softmax_scale);
    const at::Tensor v = heads_first(args.v, args.q.size(1));
    ForwardResult result{.out = at::matmul(p, v.to(p.scalar_type())).transpose(0, 1).to(args.q.scalar_type()),
                         .lse = lse.transpose(0, 1).to(args.q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat)};
    spoil_forward(result);
    return result;
  }

  BackwardResult backward(const Prepared& prepared, const BackwardArgs& args) const override {
    ++backwards;
    {
      const std::lock_guard lock(mutex_);
      last_dout = args.dout;
      last_deterministic = args.deterministic;
    }
    const int64_t heads = args.q.size(1);
    const at::Tensor p =
        probabilities(prepared, args.q, args.k, args.lse.transpose(0, 1).to(at::kDouble), args.softmax_scale);
    const at::Tensor dout = args.dout.transpose(0, 1).to(at::kDouble);
    const at::Tensor out = args.out.transpose(0, 1).to(at::kDouble);
    const at::Tensor dp = at::matmul(dout, heads_first(args.v, heads).transpose(1, 2));
    const at::Tensor ds = p * (dp - (dout * out).sum(-1, /*keepdim=*/true)) * args.softmax_scale;
    BackwardResult result{.dq = at::matmul(ds, heads_first(args.k, heads)).transpose(0, 1).to(args.q.scalar_type()),
                          .dk = tokens_first(at::matmul(ds.transpose(1, 2), heads_first(args.q, heads)), args.k),
                          .dv = tokens_first(at::matmul(p.transpose(1, 2), dout), args.v)};
    spoil_backward(result);
    return result;
  }

 private:
  // [heads, tokens, head_dim] in float64, key/value heads repeated for their query heads.
  static at::Tensor heads_first(const at::Tensor& x, int64_t heads) {
    return x.transpose(0, 1).to(at::kDouble).repeat_interleave(heads / x.size(1), 0);
  }
  // Back, summed over the query heads of each group.
  static at::Tensor tokens_first(const at::Tensor& x, const at::Tensor& like) {
    const int64_t heads_kv = like.size(1);
    return x.view({heads_kv, x.size(0) / heads_kv, x.size(1), x.size(2)}).sum(1).transpose(0, 1).to(like.scalar_type());
  }
  static at::Tensor logits(const Prepared& prepared, const at::Tensor& q, const at::Tensor& k, double scale) {
    const at::Tensor& allowed = static_cast<const FakePrepared&>(prepared).allowed;
    const at::Tensor s = at::matmul(heads_first(q, q.size(1)), heads_first(k, q.size(1)).transpose(1, 2)) * scale;
    return s.masked_fill(allowed.logical_not(), -std::numeric_limits<double>::infinity());
  }
  static at::Tensor probabilities(const Prepared& prepared, const at::Tensor& q, const at::Tensor& k,
                                  const at::Tensor& lse, double scale) {
    return (logits(prepared, q, k, scale) - lse.unsqueeze(-1)).exp().nan_to_num(0.0);
  }

  std::string id_;
  mutable std::mutex mutex_;  // ranks of one process share a backend
};

}  // namespace attnmux::testing
