// Attention modules that families share: the projections, and the module of Llama.
//
//   RotaryAttention self_attn(config, source, "model.layers.0.self_attn");
//   at::Tensor out = self_attn.forward(hidden, context);
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "models/io/model_config.h"
#include "models/nn/modules.h"

namespace attnmux {

// q_proj, k_proj, v_proj and o_proj; which of them have a bias says the config.
class HeadProjections {
 public:
  HeadProjections(const ModelConfig& config, ParameterSource& source, const std::string& path);

  // [tokens, hidden_size] -> [tokens, heads, head_dim]
  at::Tensor q(const at::Tensor& hidden) const;
  at::Tensor k(const at::Tensor& hidden) const;
  at::Tensor v(const at::Tensor& hidden) const;
  // [tokens, heads, head_dim] -> [tokens, hidden_size]
  at::Tensor o(const at::Tensor& heads) const;

 private:
  int64_t head_dim_;
  Linear q_proj_, k_proj_, v_proj_, o_proj_;
};

// LlamaAttention of transformers: rotary embedding on q and k.
class RotaryAttention {
 public:
  RotaryAttention(const ModelConfig& config, ParameterSource& source, const std::string& path);
  at::Tensor forward(const at::Tensor& hidden, const LayerContext& context) const;

 private:
  std::string path_;  // "model.layers.N.self_attn": the name that selection and ledger know
  HeadProjections project_;
};

}  // namespace attnmux
