// Root mean square norm, T5 style, as transformers' LlamaRMSNorm.
//
//   at::Tensor y = rms_norm(x, weight, 1e-5);
//
// On the CPU in fp32 one fused pass forward and one backward; elsewhere the reference. Differentiable in x and weight.
#pragma once

#include <ATen/core/Tensor.h>

namespace attnmux {

// y = weight * x / sqrt(mean(x^2) + eps), the mean over the last dimension, computed in fp32.
at::Tensor rms_norm(const at::Tensor& x,       // [tokens, hidden]
                    const at::Tensor& weight,  // [hidden]
                    double eps);

// The same from single ATen operators, any dtype and device: what rms_norm is tested against.
at::Tensor rms_norm_reference(const at::Tensor& x, const at::Tensor& weight, double eps);

}  // namespace attnmux
