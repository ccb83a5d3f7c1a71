#include "models/nn/modules.h"

#include <ATen/ATen.h>

#include "models/nn/rms_norm.h"

namespace attnmux {

Linear::Linear(ParameterSource& source, const std::string& path, const LinearSize& size)
    : weight_(source.take(path + ".weight", {size.out, size.in})) {
  if (size.bias) bias_ = source.take(path + ".bias", {size.out});
}

at::Tensor Linear::forward(const at::Tensor& x) const { return at::linear(x, weight_, bias_); }

RMSNorm::RMSNorm(ParameterSource& source, const std::string& path, int64_t size, double eps)
    : path_(path), weight_(source.take(path + ".weight", {size})), eps_(eps) {}

at::Tensor RMSNorm::forward(const at::Tensor& x, const LayerContext& context) const {
  return context.observed(path_, rms_norm(x.flatten(0, -2), weight_, eps_).view(x.sizes()));
}

GatedMLP::GatedMLP(ParameterSource& source, const std::string& path, const MlpSize& size, Gate gate)
    : path_(path),
      gate_(gate),
      gate_proj_(source, path + ".gate_proj", {.in = size.hidden, .out = size.intermediate, .bias = size.bias}),
      up_proj_(source, path + ".up_proj", {.in = size.hidden, .out = size.intermediate, .bias = size.bias}),
      down_proj_(source, path + ".down_proj", {.in = size.intermediate, .out = size.hidden, .bias = size.bias}) {}

at::Tensor GatedMLP::forward(const at::Tensor& x, const LayerContext& context) const {
  return context.observed(path_, down_proj_.forward(gate_(gate_proj_.forward(x), up_proj_.forward(x))));
}

}  // namespace attnmux
