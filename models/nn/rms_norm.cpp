#include "models/nn/rms_norm.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "models/nn/simd.h"

namespace attnmux {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

ATTNMUX_MULTIVERSION void forward_row(const float* x, const float* weight, int64_t n, float eps, float* y,
                                      float* inverse_rms) {
  float squares = 0;
#pragma omp simd reduction(+ : squares)
  for (int64_t i = 0; i < n; ++i) squares += x[i] * x[i];
  const float scale = 1.0f / std::sqrt(squares / static_cast<float>(n) + eps);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] = weight[i] * (x[i] * scale);
  *inverse_rms = scale;
}

// dx = s (w dy - x s^2 mean(w dy x)), dw += dy x s, with s the row's inverse rms.
ATTNMUX_MULTIVERSION void backward_row(const float* x, const float* weight, const float* dy, float inverse_rms,
                                       int64_t n, float* dx, float* dweight) {
  float dot = 0;
#pragma omp simd reduction(+ : dot)
  for (int64_t i = 0; i < n; ++i) dot += weight[i] * dy[i] * x[i];
  const float shift = dot / static_cast<float>(n) * inverse_rms * inverse_rms;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    dx[i] = inverse_rms * (weight[i] * dy[i] - x[i] * shift);
    dweight[i] += dy[i] * x[i] * inverse_rms;
  }
}

// Rows are cut into a fixed number of blocks, each with its own partial dweight, so that the sum does not depend on the
// number of threads.
constexpr int64_t kBlocks = 16;

class RmsNorm : public torch::autograd::Function<RmsNorm> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight, double eps) {
    const int64_t rows = x.size(0);
    const int64_t n = x.size(1);
    at::Tensor y = at::empty_like(x);
    at::Tensor inverse_rms = at::empty({rows}, x.options());
    const float* x_data = x.const_data_ptr<float>();
    const float* weight_data = weight.const_data_ptr<float>();
    float* y_data = y.mutable_data_ptr<float>();
    float* rms_data = inverse_rms.mutable_data_ptr<float>();
    at::parallel_for(0, rows, 16, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        forward_row(x_data + row * n, weight_data, n, static_cast<float>(eps), y_data + row * n, rms_data + row);
      }
    });
    ctx->save_for_backward({x, weight, inverse_rms});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &inverse_rms = saved[2];
    const at::Tensor dy = grads[0].contiguous();
    const int64_t rows = x.size(0);
    const int64_t n = x.size(1);
    at::Tensor dx = at::empty_like(x);
    at::Tensor partial = at::zeros({kBlocks, n}, x.options());
    const float* x_data = x.const_data_ptr<float>();
    const float* weight_data = weight.const_data_ptr<float>();
    const float* dy_data = dy.const_data_ptr<float>();
    const float* rms_data = inverse_rms.const_data_ptr<float>();
    float* dx_data = dx.mutable_data_ptr<float>();
    float* partial_data = partial.mutable_data_ptr<float>();
    const int64_t block = (rows + kBlocks - 1) / kBlocks;
    at::parallel_for(0, kBlocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        for (int64_t row = b * block; row < std::min(rows, (b + 1) * block); ++row) {
          backward_row(x_data + row * n, weight_data, dy_data + row * n, rms_data[row], n, dx_data + row * n,
                       partial_data + b * n);
        }
      }
    });
    return {dx, partial.sum(0), at::Tensor()};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (!x.is_cpu() || x.scalar_type() != at::kFloat) return rms_norm_reference(x, weight, eps);
  return RmsNorm::apply(x.contiguous(), weight, eps);
}

at::Tensor rms_norm_reference(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor wide = x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
  const at::Tensor variance = wide.pow(2).mean(-1, /*keepdim=*/true);
  return weight * (wide * at::rsqrt(variance + eps)).to(x.scalar_type());
}

}  // namespace attnmux
