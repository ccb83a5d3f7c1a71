// Modules that model families share. Each has the constructor (source, path, sizes) and forward().
//
//   Linear q_proj(source, "model.layers.0.self_attn.q_proj", {.in = 32, .out = 64});
//   at::Tensor q = q_proj.forward(hidden);
//
// A batch is one packed sequence, so tensors are [tokens, ...] without a batch dimension, and the mask is the step's
// business. forward() is const; any thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>

#include "models/nn/causal_lm.h"
#include "models/nn/parameter_source.h"
#include "models/nn/rope.h"

namespace attnmux {

// What one forward pass hands down to its layers.
struct LayerContext {
  StepContext& step;
  const RopeTable& rope;
  const ForwardOptions& options;

  const at::Tensor& observed(const std::string& path, const at::Tensor& output) const {
    if (options.observe) options.observe(path, output);
    return output;
  }
};

struct LinearSize {
  int64_t in = 0;
  int64_t out = 0;
  bool bias = false;
};

class Linear {
 public:
  Linear(ParameterSource& source, const std::string& path, const LinearSize& size);
  at::Tensor forward(const at::Tensor& x) const;  // [tokens, in] -> [tokens, out]

 private:
  at::Tensor weight_;  // [out, in]
  std::optional<at::Tensor> bias_;
};

// LlamaRMSNorm of transformers, over the last dimension: of a hidden state, or of each head.
class RMSNorm {
 public:
  RMSNorm(ParameterSource& source, const std::string& path, int64_t size, double eps);
  at::Tensor forward(const at::Tensor& x, const LayerContext& context) const;  // any shape [..., size]

 private:
  std::string path_;
  at::Tensor weight_;  // [size]
  double eps_;
};

struct MlpSize {
  int64_t hidden = 0;
  int64_t intermediate = 0;
  bool bias = false;
};

// down(gate(gate_proj(x), up_proj(x))).
class GatedMLP {
 public:
  using Gate = at::Tensor (*)(const at::Tensor& gate, const at::Tensor& up);

  GatedMLP(ParameterSource& source, const std::string& path, const MlpSize& size, Gate gate);
  at::Tensor forward(const at::Tensor& x, const LayerContext& context) const;  // [tokens, hidden] -> likewise

 private:
  std::string path_;
  Gate gate_;
  Linear gate_proj_, up_proj_, down_proj_;
};

}  // namespace attnmux
