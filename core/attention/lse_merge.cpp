#include "lse_merge.h"

#include <ATen/ATen.h>

#include <limits>

namespace attnmux {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

at::ScalarType wide_dtype(at::ScalarType dtype) { return dtype == at::kDouble ? at::kDouble : at::kFloat; }

ForwardResult LseMerge::nothing(at::ScalarType dtype) const {
  const auto options = q_.options();
  return {.out = at::zeros({q_.size(0), q_.size(1), head_dim_v_}, options.dtype(dtype)),
          .lse = at::full({q_.size(0), q_.size(1)}, -kInfinity, options.dtype(wide_dtype(dtype)))};
}

void LseMerge::add(const ForwardResult& part, const PartRows& rows) {
  const at::ScalarType wide = wide_dtype(q_.scalar_type());
  if (!merged_.out.defined()) {
    if (rows.all()) {
      merged_ = part;
      return;
    }
    merged_ = nothing(wide);
  }
  merged_.out = merged_.out.to(wide);
  rows.change(merged_.lse, [&](const at::Tensor& merged_lse) {
    const at::Tensor lse = at::logaddexp(merged_lse, part.lse);
    // A row without keys so far has lse -inf: its weights are exp(-inf - 0) = 0 and not NaN.
    const at::Tensor reference = lse.masked_fill(lse == -kInfinity, 0);
    const auto weight = [&](const at::Tensor& of) { return at::exp(of - reference).unsqueeze(2); };
    rows.change(merged_.out, [&](const at::Tensor& out) {
      out.mul_(weight(merged_lse)).addcmul_(part.out.to(wide), weight(part.lse));
    });
    merged_lse.copy_(lse);
  });
}

ForwardResult LseMerge::finish() {
  if (!merged_.out.defined()) return nothing(q_.scalar_type());
  return {.out = merged_.out.to(q_.scalar_type()), .lse = merged_.lse};
}

}  // namespace attnmux
