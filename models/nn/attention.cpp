#include "models/nn/attention.h"

#include <ATen/ATen.h>

namespace attnmux {
namespace {

// Not view({tokens, -1, head_dim}): a rank without tokens has no elements to tell the -1 from.
at::Tensor split_heads(const at::Tensor& x, int64_t head_dim) { return x.unflatten(1, {-1, head_dim}); }

}  // namespace

HeadProjections::HeadProjections(const ModelConfig& config, ParameterSource& source, const std::string& path)
    : head_dim_(config.head_dim),
      q_proj_(source, path + ".q_proj",
              {.in = config.hidden_size, .out = config.num_attention_heads * config.head_dim, .bias = config.qkv_bias}),
      k_proj_(source, path + ".k_proj",
              {.in = config.hidden_size, .out = config.num_key_value_heads * config.head_dim, .bias = config.qkv_bias}),
      v_proj_(source, path + ".v_proj",
              {.in = config.hidden_size, .out = config.num_key_value_heads * config.head_dim, .bias = config.qkv_bias}),
      o_proj_(source, path + ".o_proj",
              {.in = config.num_attention_heads * config.head_dim, .out = config.hidden_size, .bias = config.o_bias}) {}

at::Tensor HeadProjections::q(const at::Tensor& hidden) const {
  return split_heads(q_proj_.forward(hidden), head_dim_);
}
at::Tensor HeadProjections::k(const at::Tensor& hidden) const {
  return split_heads(k_proj_.forward(hidden), head_dim_);
}
at::Tensor HeadProjections::v(const at::Tensor& hidden) const {
  return split_heads(v_proj_.forward(hidden), head_dim_);
}
at::Tensor HeadProjections::o(const at::Tensor& heads) const { return o_proj_.forward(heads.flatten(1)); }

RotaryAttention::RotaryAttention(const ModelConfig& config, ParameterSource& source, const std::string& path)
    : path_(path), project_(config, source, path) {}

at::Tensor RotaryAttention::forward(const at::Tensor& hidden, const LayerContext& context) const {
  const at::Tensor q = apply_rope(project_.q(hidden), context.rope);
  const at::Tensor k = apply_rope(project_.k(hidden), context.rope);
  const AttendResult result = context.step.attend(path_, q, k, project_.v(hidden), {});  // scale: 1 / sqrt(head_dim)
  return context.observed(path_, project_.o(result.out));
}

}  // namespace attnmux
