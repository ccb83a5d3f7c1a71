// Inputs that are no contiguous [tokens, heads, head_dim]: right, or refused by an Error before anything is written.
#include <ATen/ATen.h>

#include "conformance/families.h"

namespace attnmux::conformance {
namespace {

// [heads, tokens, dim] in memory.
at::Tensor transposed(const at::Tensor& x) { return x.transpose(0, 1).contiguous().transpose(0, 1); }

// Every second token and every second head of a larger tensor, whose other elements are NaN.
at::Tensor sliced(const at::Tensor& x) {
  at::Tensor large = at::full({2 * x.size(0), 2 * x.size(1), x.size(2) + 3}, std::nan(""), x.options());
  const at::Tensor part = large.slice(0, 0, 2 * x.size(0), 2).slice(1, 1, 2 * x.size(1), 2).slice(2, 0, x.size(2));
  part.copy_(x);
  return part;
}

// Begins one element behind an aligned address.
at::Tensor misaligned(const at::Tensor& x) {
  at::Tensor flat = at::empty({x.numel() + 1}, x.options());
  const at::Tensor part = flat.slice(0, 1).view(x.sizes());
  part.copy_(x);
  return part;
}

// Elements of a head are not neighbours in memory.
at::Tensor strided_dim(const at::Tensor& x) { return x.permute({0, 2, 1}).contiguous().permute({0, 2, 1}); }

// One head for all, with stride 0.
at::Tensor broadcast(const at::Tensor& x) { return x.slice(1, 0, 1).contiguous().expand(x.sizes()); }

}  // namespace

void run_strides(const Subject& subject, const Case& c, CaseResult& result) {
  Setup setup(c);
  if (!takes(subject, setup, result)) return;
  std::string shape = c.check;
  if (shape.starts_with("grad-")) shape = shape.substr(5);
  const auto reshape = [&](const at::Tensor& x) {
    if (shape == "transposed") return transposed(x);
    if (shape == "sliced") return sliced(x);
    if (shape == "misaligned") return misaligned(x);
    if (shape == "strided-dim") return strided_dim(x);
    return broadcast(x);
  };
  if (shape == "broadcast") setup.in.k = broadcast(setup.in.k), setup.in.v = broadcast(setup.in.v);
  Inputs in = on_device(setup.in, subject.device);
  if (shape != "broadcast") in.q = reshape(in.q), in.dout = reshape(in.dout);
  in.k = reshape(in.k);
  in.v = reshape(in.v);
  run_and_compare(subject, setup, in, is_training(c) ? unsigned{kGrads} : kOut | kLseTensor, Refusal::kAllowed, result);
}

}  // namespace attnmux::conformance
