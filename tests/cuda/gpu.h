// What tests on a GPU share: whether there is one, memory full of NaN, and attention as PyTorch would write it.
#pragma once

#include <ATen/ATen.h>
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "attnmux/device.h"
#include "attnmux/mask.h"

namespace attnmux::testing {

// LibTorch's CUDA part is not linked; where it loads and finds a GPU, tensors may live there.
inline bool has_hopper() {
  static const bool found = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) != nullptr && at::hasCUDA() &&
                            device_arch(open_device("cuda")) == 90;
  return found;
}

#define SKIP_WITHOUT_HOPPER() \
  if (!::attnmux::testing::has_hopper()) GTEST_SKIP() << "no GPU of sm_90, or LibTorch's CUDA part does not load"

// Leaves NaN in the blocks that the allocator hands out next for tensors of these sizes, so that an element that
// nothing writes is noticed.
inline void poison(const std::vector<at::Tensor>& like) {
  std::vector<at::Tensor> blocks;
  for (int i = 0; i < 6; ++i) {
    for (const at::Tensor& tensor : like) {
      const auto bytes = static_cast<int64_t>(tensor.nbytes());
      blocks.push_back(at::full({bytes}, 0xFF, tensor.options().dtype(at::kByte)));
    }
  }
}

struct DenseResult {
  at::Tensor out;  // [tokens_q, heads_q, head_dim]
  at::Tensor lse;  // [tokens_q, heads_q], -inf for rows without keys
  at::Tensor dq, dk, dv;
};

// Attention in a few lines of PyTorch, gradients by autograd, every intermediate a tensor of the inputs' dtype on their
// device: in float64 what is true, in bf16 or fp16 the yardstick of kernels in that dtype.
inline DenseResult dense_attention(const at::Tensor& attended, const at::Tensor& q, const at::Tensor& k,
                                   const at::Tensor& v, const at::Tensor& dout, double softmax_scale) {
  const auto leaf = [](const at::Tensor& tensor) { return tensor.detach().clone().requires_grad_(true); };
  const at::Tensor own_q = leaf(q), own_k = leaf(k), own_v = leaf(v);
  const int64_t group = q.size(1) / k.size(1);
  const at::Tensor empty = attended.any(1, /*keepdim=*/true).logical_not();
  // Rows without keys keep their scores, for softmax of -inf alone is NaN, in gradients, too.
  const at::Tensor refused = attended.logical_not().logical_and(empty.logical_not());
  const at::Tensor k_heads = own_k.transpose(0, 1).repeat_interleave(group, 0);
  const at::Tensor v_heads = own_v.transpose(0, 1).repeat_interleave(group, 0);
  const at::Tensor s = (at::matmul(own_q.transpose(0, 1), k_heads.transpose(1, 2)) * softmax_scale)
                           .masked_fill(refused, -std::numeric_limits<double>::infinity());
  const at::Tensor out = at::matmul(at::softmax(s, 2).masked_fill(empty, 0), v_heads).transpose(0, 1);
  out.backward(dout);
  const at::Tensor lse =
      at::logsumexp(s.detach(), 2).masked_fill(empty.squeeze(1), -std::numeric_limits<double>::infinity());
  return {out.detach(), lse.transpose(0, 1), own_q.grad(), own_k.grad(), own_v.grad()};
}

// [total_q, total_k] bool on the CPU, asked pair by pair.
inline at::Tensor attended_pairs(const AttnMaskSpec& mask) {
  const at::Tensor attended = at::empty({mask.total_q(), mask.total_k()}, at::kBool);
  bool* pair = attended.data_ptr<bool>();
  for (int64_t q = 0; q < mask.total_q(); ++q) {
    for (int64_t k = 0; k < mask.total_k(); ++k) *pair++ = mask.allowed(q, k);
  }
  return attended;
}

}  // namespace attnmux::testing
