#include "oracle/plain_attention.h"

#include <ATen/ATen.h>

#include <limits>

namespace attnmux::testing {

PlainResult plain_attention(const AttnMaskSpec& mask, const OracleInputs& inputs) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const at::ScalarType stored = inputs.q.scalar_type();
  // fp32 tensors that are rounded by hand: the same numbers as tensors of `stored`, whose products are slow on a CPU.
  const at::ScalarType computed = stored == at::kDouble ? at::kDouble : at::kFloat;
  const auto rounded = [&](const at::Tensor& tensor) { return tensor.to(stored).to(computed); };

  const int64_t tokens_q = inputs.q.size(0), tokens_k = inputs.k.size(0);
  const int64_t heads_kv = inputs.k.size(1), group = inputs.q.size(1) / heads_kv;
  at::Tensor refused = at::empty({tokens_q, tokens_k}, at::kBool);
  for (int64_t row = 0; row < tokens_q; ++row) {
    for (int64_t key = 0; key < tokens_k; ++key)
      refused.data_ptr<bool>()[row * tokens_k + key] = !mask.allowed(row, key);
  }
  const auto heads_first = [&](const at::Tensor& thd) { return thd.to(computed).transpose(0, 1); };
  const at::Tensor q = heads_first(inputs.q), dout = heads_first(inputs.dout);
  const at::Tensor k = heads_first(inputs.k).repeat_interleave(group, 0);
  const at::Tensor v = heads_first(inputs.v).repeat_interleave(group, 0);

  const at::Tensor qk = rounded(at::matmul(q, k.transpose(1, 2)));
  const at::Tensor s = rounded(qk * inputs.softmax_scale).masked_fill(refused, -kInfinity);
  const at::Tensor p = rounded(at::softmax(s, 2).masked_fill(refused.all(1, /*keepdim=*/true), 0));
  const at::Tensor out = rounded(at::matmul(p, v));

  const at::Tensor delta = rounded((dout * out).sum(2, /*keepdim=*/true));
  const at::Tensor dp = rounded(at::matmul(dout, v.transpose(1, 2)));
  const at::Tensor ds = rounded(rounded(p * (dp - delta)) * inputs.softmax_scale);
  const auto group_sum = [&](const at::Tensor& per_head) {
    return rounded(rounded(per_head).unflatten(0, {heads_kv, group}).sum(1)).transpose(0, 1);
  };
  return {.out = out.transpose(0, 1),
          .lse = rounded(at::logsumexp(s, 2)).transpose(0, 1),
          .dq = rounded(at::matmul(ds, k)).transpose(0, 1),
          .dk = group_sum(at::matmul(ds.transpose(1, 2), q)),
          .dv = group_sum(at::matmul(p.transpose(1, 2), dout))};
}

}  // namespace attnmux::testing
