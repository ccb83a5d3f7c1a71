#include "conformance/truth.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>

namespace attnmux::conformance {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

at::Tensor heads_first(const at::Tensor& thd) {
  return thd.detach().cpu().to(at::kDouble).transpose(0, 1).contiguous();
}

at::Tensor for_query_heads(const at::Tensor& x, int64_t heads_q) { return x.repeat_interleave(heads_q / x.size(0), 0); }

// Sums the query heads that share a key/value head.
at::Tensor group_sum(const at::Tensor& x, int64_t heads_kv) {
  return x.unflatten(0, {heads_kv, x.size(0) / heads_kv}).sum(1);
}

at::Tensor thd(const at::Tensor& x) { return x.detach().transpose(0, 1).contiguous(); }

}  // namespace

at::Tensor allowed_matrix(const Case& c, const CaseMask& mask) {
  at::Tensor allowed = at::empty({c.sq, c.sk}, at::kBool);
  bool* at = allowed.data_ptr<bool>();
  for (int64_t q = 0; q < c.sq; ++q) {
    for (int64_t k = 0; k < c.sk; ++k) *at++ = mask.allowed(q, k);
  }
  return allowed;
}

Truth truth_of(const at::Tensor& allowed, const Inputs& in, Gradients gradients) {
  const bool wanted = gradients == Gradients::kYes;
  const int64_t heads_q = in.q.size(1), heads_kv = in.k.size(1);
  const at::Tensor q = heads_first(in.q).requires_grad_(wanted), k = heads_first(in.k).requires_grad_(wanted);
  const at::Tensor v = heads_first(in.v).requires_grad_(wanted), dout = heads_first(in.dout);
  const at::Tensor k_all = for_query_heads(k, heads_q), v_all = for_query_heads(v, heads_q);
  const at::Tensor empty = allowed.any(1).logical_not();

  const at::Tensor scores = at::matmul(q, k_all.transpose(1, 2)) * in.softmax_scale;  // [heads, sq, sk]
  // A row without keys would make NaN of a softmax over nothing: it gets scores of 0 and then weights of 0.
  const at::Tensor masked = scores.masked_fill(allowed.logical_not(), -kInfinity).masked_fill(empty.unsqueeze(1), 0);
  const at::Tensor p = at::softmax(masked, 2).masked_fill(empty.unsqueeze(1), 0);
  const at::Tensor out = at::matmul(p, v_all);

  Truth truth;
  truth.empty_rows = empty;
  const c10::NoGradGuard no_grad;
  const at::Tensor weights = p.detach(), abs_q = q.abs(), abs_k = k_all.abs(), abs_v = v_all.abs();
  const at::Tensor terms = at::matmul(abs_q, abs_k.transpose(1, 2)) * std::abs(in.softmax_scale);
  const at::Tensor lse =
      at::logsumexp(scores.detach().masked_fill(allowed.logical_not(), -kInfinity), 2);           // [heads, sq]
  const at::Tensor condition = weights * (terms + lse.masked_fill(empty, 0).abs().unsqueeze(2));  // [heads, sq, sk]
  const at::Tensor attended = allowed.to(at::kDouble);                                            // [sq, sk]
  truth.out = {thd(out), thd(at::matmul(weights, abs_v)), thd(at::matmul(condition, abs_v)),
               thd(at::matmul(attended, abs_v + 1) + 1)};
  const at::Tensor largest = in.k.size(0) == 0 ? at::zeros({heads_q, in.q.size(0)}, at::kDouble)
                                               : terms.masked_fill(allowed.logical_not(), 0).amax(2);
  truth.lse = {thd(lse), thd(largest + 1), thd(at::zeros_like(lse)), thd(at::zeros_like(lse))};
  if (!wanted) return truth;

  const auto grads = [&] {
    const c10::AutoGradMode grad(true);
    return torch::autograd::grad({out}, {q, k, v}, {dout});
  }();
  const at::Tensor abs_dout = dout.abs();
  const at::Tensor abs_dp = at::matmul(abs_dout, abs_v.transpose(1, 2));
  const double abs_scale = std::abs(in.softmax_scale);
  const at::Tensor own_delta = (abs_dout * at::matmul(weights, abs_v)).sum(2, /*keepdim=*/true);
  // dS = scale * p * (dp - delta) with delta = rowsum(dout * out), for weights p.
  const auto ds_of = [&](const at::Tensor& p) {
    const at::Tensor abs_delta = (abs_dout * at::matmul(p, abs_v)).sum(2, /*keepdim=*/true);
    return (p * (abs_dp + own_delta) + weights * abs_delta) * abs_scale;
  };
  const at::Tensor ds = ds_of(weights), ds_by_scores = ds_of(condition);
  // Of dS: a lost weight takes dp - delta with it; a product that is lost is one unit, before the scale and behind it.
  const at::Tensor ds_lost = attended * ((abs_dp + own_delta + 1) * abs_scale + 1);
  const auto to_k = [&](const at::Tensor& p) { return thd(group_sum(at::matmul(p.transpose(1, 2), abs_q), heads_kv)); };
  const auto to_v = [&](const at::Tensor& p) {
    return thd(group_sum(at::matmul(p.transpose(1, 2), abs_dout), heads_kv));
  };
  // The products of the last sum may be lost, and the sum itself.
  const at::Tensor pairs = attended.expand_as(ds_lost);
  const at::Tensor queries = group_sum(pairs.sum(1).unsqueeze(2), heads_kv), keys = pairs.sum(2).unsqueeze(2);
  truth.dq = {thd(grads[0]), thd(at::matmul(ds, abs_k)), thd(at::matmul(ds_by_scores, abs_k)),
              thd(at::matmul(ds_lost, abs_k) + keys + 1)};
  truth.dk = {thd(grads[1]), to_k(ds), to_k(ds_by_scores), to_k(ds_lost) + thd(queries) + 1};
  truth.dv = {thd(grads[2]), to_v(weights), to_v(condition), to_v(pairs) + thd(queries) + 1};
  return truth;
}

}  // namespace attnmux::conformance
