#include "common/aten_tensors.h"

#include <ATen/ATen.h>

#include <limits>

namespace attnmux {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

at::Tensor aligned_rows(const at::Tensor& thd) {
  constexpr int64_t kBytes = 16;
  const int64_t elements = kBytes / thd.element_size();
  const bool fits = thd.stride(2) == 1 && thd.stride(0) > 0 && thd.stride(0) % elements == 0 && thd.stride(1) > 0 &&
                    thd.stride(1) % elements == 0 && reinterpret_cast<uintptr_t>(thd.const_data_ptr()) % kBytes == 0;
  return fits ? thd : thd.clone(at::MemoryFormat::Contiguous);
}

bool nothing_to_do(const at::Tensor& q, const at::Tensor& k) { return q.numel() == 0 || k.numel() == 0; }

ForwardResult empty_forward(const at::Tensor& q) {
  const auto lse_dtype = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return {.out = at::zeros(q.sizes(), q.options()),
          .lse = at::full({q.size(0), q.size(1)}, -kInfinity, q.options().dtype(lse_dtype))};
}

BackwardResult empty_backward(const BackwardArgs& args) {
  return {.dq = at::zeros(args.q.sizes(), args.q.options()),
          .dk = at::zeros(args.k.sizes(), args.k.options()),
          .dv = at::zeros(args.v.sizes(), args.v.options())};
}

ForwardResult with_empty_rows(ForwardResult result, const at::Tensor& empty) {
  if (!empty.defined()) return result;
  return {.out = result.out.masked_fill(empty.unsqueeze(1).unsqueeze(2), 0),
          .lse = result.lse.masked_fill(empty.unsqueeze(1), -kInfinity)};
}

at::Tensor kernel_lse(const at::Tensor& lse) {
  return lse.masked_fill(lse == -kInfinity, kInfinity).transpose(0, 1).contiguous();
}

}  // namespace attnmux
