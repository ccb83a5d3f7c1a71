#include "lse_merge.h"

#include <ATen/ATen.h>

#include <limits>

namespace attnmux {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

at::ScalarType wide_dtype(at::ScalarType dtype) { return dtype == at::kDouble ? at::kDouble : at::kFloat; }

void LseMerge::add(const ForwardResult& part) {
  if (!merged_.out.defined()) {
    merged_ = part;
    return;
  }
  const at::ScalarType wide = part.lse.scalar_type();
  const at::Tensor lse = at::logaddexp(merged_.lse, part.lse);
  // A row without keys so far has lse -inf: its weights are exp(-inf - 0) = 0 and not NaN.
  const at::Tensor reference = lse.masked_fill(lse == -kInfinity, 0);
  const auto weight = [&](const at::Tensor& of) { return at::exp(of - reference).unsqueeze(2); };
  merged_.out = merged_.out.to(wide).mul_(weight(merged_.lse)).addcmul_(part.out.to(wide), weight(part.lse));
  merged_.lse = lse;
}

ForwardResult LseMerge::finish(const at::Tensor& q, int64_t head_dim_v) {
  if (!merged_.out.defined()) {
    return {.out = at::zeros({q.size(0), q.size(1), head_dim_v}, q.options()),
            .lse = at::full({q.size(0), q.size(1)}, -kInfinity, q.options().dtype(wide_dtype(q.scalar_type())))};
  }
  return {.out = merged_.out.to(q.scalar_type()), .lse = merged_.lse};
}

}  // namespace attnmux
