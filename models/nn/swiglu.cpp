#include "models/nn/swiglu.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "models/nn/simd.h"

namespace attnmux {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

ATTNMUX_MULTIVERSION void forward_span(const float* gate, const float* up, int64_t n, float* out) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) out[i] = gate[i] * fast_sigmoid(gate[i]) * up[i];
}

// silu'(g) = s + g s (1 - s) with s = sigmoid(g).
ATTNMUX_MULTIVERSION void backward_span(const float* gate, const float* up, const float* dout, int64_t n, float* dgate,
                                        float* dup) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float s = fast_sigmoid(gate[i]);
    const float silu = gate[i] * s;
    dup[i] = dout[i] * silu;
    dgate[i] = dout[i] * up[i] * (s + silu * (1.0f - s));
  }
}

constexpr int64_t kGrain = 16384;  // elements a task

class SwiGlu : public torch::autograd::Function<SwiGlu> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate, const at::Tensor& up) {
    at::Tensor out = at::empty_like(gate);
    const float* gate_data = gate.const_data_ptr<float>();
    const float* up_data = up.const_data_ptr<float>();
    float* out_data = out.mutable_data_ptr<float>();
    at::parallel_for(0, gate.numel(), kGrain, [&](int64_t begin, int64_t end) {
      forward_span(gate_data + begin, up_data + begin, end - begin, out_data + begin);
    });
    ctx->save_for_backward({gate, up});
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor dout = grads[0].contiguous();
    at::Tensor dgate = at::empty_like(saved[0]);
    at::Tensor dup = at::empty_like(saved[1]);
    const float* gate_data = saved[0].const_data_ptr<float>();
    const float* up_data = saved[1].const_data_ptr<float>();
    const float* dout_data = dout.const_data_ptr<float>();
    float* dgate_data = dgate.mutable_data_ptr<float>();
    float* dup_data = dup.mutable_data_ptr<float>();
    at::parallel_for(0, dout.numel(), kGrain, [&](int64_t begin, int64_t end) {
      backward_span(gate_data + begin, up_data + begin, dout_data + begin, end - begin, dgate_data + begin,
                    dup_data + begin);
    });
    return {dgate, dup};
  }
};

}  // namespace

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  if (!gate.is_cpu() || gate.scalar_type() != at::kFloat) return swiglu_reference(gate, up);
  return SwiGlu::apply(gate.contiguous(), up.contiguous());
}

at::Tensor swiglu_reference(const at::Tensor& gate, const at::Tensor& up) { return at::silu(gate) * up; }

}  // namespace attnmux
