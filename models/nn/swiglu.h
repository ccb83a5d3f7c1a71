// The gate of Llama's MLP: silu(gate) * up.
//
// On the CPU in fp32 one fused pass forward and one backward that keeps no intermediate; elsewhere the reference.
#pragma once

#include <ATen/core/Tensor.h>

namespace attnmux {

// silu(gate) * up with silu(x) = x / (1 + exp(-x)); all [tokens, intermediate]. Differentiable in both.
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);

// The same from single ATen operators, any dtype and device: what swiglu is tested against.
at::Tensor swiglu_reference(const at::Tensor& gate, const at::Tensor& up);

}  // namespace attnmux
