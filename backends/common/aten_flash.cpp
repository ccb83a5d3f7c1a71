#include "common/aten_flash.h"

#include <ATen/ATen.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>

#include <limits>

#include "common/aten_tensors.h"
#include "common/positive_scale.h"

namespace attnmux {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// THD to the kernel's [1, heads, tokens, head_dim], without a copy where the kernel reads the strides right.
at::Tensor to_kernel(const at::Tensor& thd) {
  const bool rows_apart = thd.stride(0) >= thd.size(2) && thd.stride(2) == 1;  // as BLAS wants its matrices
  return (rows_apart ? thd : thd.contiguous()).transpose(0, 1).unsqueeze(0);
}

at::Tensor to_thd(const at::Tensor& kernel) { return kernel.squeeze(0).transpose(0, 1); }

// The kernel adds the dk and dv of a group's query heads up in the tensors' own dtype. In bf16 and fp16 that costs up
// to six times the error of a plain implementation (measured on dv, groups of 8), so each query head gets its own k and
// v there, and the sum over the group is taken in fp32.
bool needs_own_heads(const at::Tensor& q, const at::Tensor& k) {
  return q.size(1) != k.size(1) && (q.scalar_type() == at::kBFloat16 || q.scalar_type() == at::kHalf);
}

BackwardResult backward_with_own_heads(BackwardArgs args, const AtenFlashOptions& options) {
  const int64_t heads_kv = args.k.size(1), group = args.q.size(1) / heads_kv;
  args.k = args.k.repeat_interleave(group, 1);
  args.v = args.v.repeat_interleave(group, 1);
  BackwardResult result = aten_flash_backward(args, options);
  result.dk = result.dk.unflatten(1, {heads_kv, group}).sum(2);
  result.dv = result.dv.unflatten(1, {heads_kv, group}).sum(2);
  return result;
}

}  // namespace

ForwardResult aten_flash_forward(const ForwardArgs& args, const AtenFlashOptions& options) {
  if (nothing_to_do(args.q, args.k)) return empty_forward(args.q);
  const PositiveScale scale = make_positive(args.softmax_scale);
  auto [out, lse] = at::_scaled_dot_product_flash_attention_for_cpu(
      to_kernel(scale.apply(args.q)), to_kernel(args.k), to_kernel(args.v), /*dropout_p=*/0.0, options.is_causal,
      options.attn_mask, scale.softmax_scale);
  ForwardResult result = {.out = to_thd(out), .lse = to_thd(lse)};
  // An infinite score makes NaN, but the kernel's exponential for bf16 and fp16 turns it into 0.
  const at::Tensor overflowed = result.lse == kInfinity;
  if (overflowed.any().item<bool>()) result.out.masked_fill_(overflowed.unsqueeze(2), kNan);
  return result;
}

BackwardResult aten_flash_backward(const BackwardArgs& args, const AtenFlashOptions& options) {
  if (nothing_to_do(args.q, args.k)) return empty_backward(args);
  if (needs_own_heads(args.q, args.k)) return backward_with_own_heads(args, options);
  // The kernel computes exp(score - lse); -inf - (-inf) would be NaN where any finite lse gives the right 0.
  const at::Tensor lse = args.lse.masked_fill(args.lse == -kInfinity, 0);
  const PositiveScale scale = make_positive(args.softmax_scale);
  auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
      to_kernel(args.dout), to_kernel(scale.apply(args.q)), to_kernel(args.k), to_kernel(args.v), to_kernel(args.out),
      lse.transpose(0, 1).unsqueeze(0), /*dropout_p=*/0.0, options.is_causal, options.attn_mask, scale.softmax_scale);
  return {.dq = scale.apply(to_thd(dq)), .dk = to_thd(dk), .dv = to_thd(dv)};
}

}  // namespace attnmux
