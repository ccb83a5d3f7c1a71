// The decoder around a family's attention: layers of the usual kind, and the model that runs them.
//
//   using LlamaDecoderLayer = PreNormDecoderLayer<LlamaAttention>;
//   using LlamaModel = DecoderModel<LlamaDecoderLayer>;
//
// Attention and layer classes have the constructor (config, source, path) and forward(hidden, context).
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "models/io/model_config.h"
#include "models/nn/activation_checkpoint.h"
#include "models/nn/modules.h"
#include "models/nn/swiglu.h"

namespace attnmux {

// LlamaDecoderLayer of transformers: a norm in front of attention and in front of the MLP, each added to what came in.
template <class Attention>
class PreNormDecoderLayer {
 public:
  PreNormDecoderLayer(const ModelConfig& config, ParameterSource& source, const std::string& path)
      : self_attn_(config, source, path + ".self_attn"),
        mlp_(source, path + ".mlp", {.hidden = config.hidden_size, .intermediate = config.intermediate_size}, swiglu),
        input_layernorm_(source, path + ".input_layernorm", config.hidden_size, config.rms_norm_eps),
        post_attention_layernorm_(source, path + ".post_attention_layernorm", config.hidden_size, config.rms_norm_eps) {
  }

  at::Tensor forward(const at::Tensor& input, const LayerContext& context) const {
    const at::Tensor hidden = input + self_attn_.forward(input_layernorm_.forward(input, context), context);
    return hidden + mlp_.forward(post_attention_layernorm_.forward(hidden, context), context);
  }

 private:
  Attention self_attn_;
  GatedMLP mlp_;
  RMSNorm input_layernorm_, post_attention_layernorm_;
};

inline std::string layer_path(const std::string& model_path, int64_t layer) {
  return model_path + ".layers." + std::to_string(layer);
}

template <class Layer>
std::vector<Layer> make_layers(const ModelConfig& config, ParameterSource& source, const std::string& model_path) {
  std::vector<Layer> layers;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    layers.emplace_back(config, source, layer_path(model_path, layer));
  }
  return layers;
}

// The layer's output; with activation checkpointing its intermediate tensors are dropped and computed again.
template <class Layer>
at::Tensor run_layer(const Layer& layer, const at::Tensor& hidden, const LayerContext& context) {
  if (!context.options.activation_checkpointing) return layer.forward(hidden, context);
  // The copied table keeps what the second run needs alive until backward.
  return activation_checkpoint(context.step, hidden,
                               [&layer, &step = context.step, rope = context.rope](const at::Tensor& x) {
                                 return layer.forward(x, LayerContext{step, rope, ForwardOptions{}});
                               });
}

// LlamaModel of transformers: embedding, layers under one rotary embedding, final norm.
template <class Layer>
class DecoderModel {
 public:
  DecoderModel(const ModelConfig& config, ParameterSource& source, const std::string& path)
      : path_(path),
        embed_tokens_(source.take(path + ".embed_tokens.weight", {config.vocab_size, config.hidden_size})),
        layers_(make_layers<Layer>(config, source, path)),
        norm_(source, path + ".norm", config.hidden_size, config.rms_norm_eps),
        rope_(config.rope),
        head_dim_(config.head_dim) {}

  at::Tensor embed(const at::Tensor& input_ids, const ForwardOptions& options) const {
    const at::Tensor embeds = at::embedding(embed_tokens_, input_ids);
    if (options.observe) options.observe(path_ + ".embed_tokens", embeds);
    return embeds;
  }

  // Layers and norm. embeds: [tokens, hidden_size].
  at::Tensor forward(const at::Tensor& embeds, const at::Tensor& position_ids, StepContext& step,
                     const ForwardOptions& options) const {
    return forward(embeds, make_rope_table(rope_, head_dim_, position_ids, embeds.scalar_type()), step, options);
  }

  at::Tensor forward(const at::Tensor& embeds, const RopeTable& rope, StepContext& step,
                     const ForwardOptions& options) const {
    const LayerContext context{step, rope, options};
    at::Tensor hidden = embeds;
    for (const Layer& layer : layers_) hidden = run_layer(layer, hidden, context);
    return norm_.forward(hidden, context);
  }

 private:
  std::string path_;
  at::Tensor embed_tokens_;  // [vocab_size, hidden_size]
  std::vector<Layer> layers_;
  RMSNorm norm_;
  RopeConfig rope_;
  int64_t head_dim_;
};

}  // namespace attnmux
