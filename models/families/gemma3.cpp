// Follows transformers 5.23.0, models/gemma3/modeling_gemma3.py, the text model, class by class: RMSNorm, MLP,
// Attention, DecoderLayer, TextModel, ForCausalLM.
//
// Against Llama: the embedding is scaled, norms multiply by 1 + weight, each head of q and k has a norm, attention has
// a scale of its own, the MLP's gate is gelu, norms also follow attention and MLP, and most layers see a window, under
// a rotary embedding of their own.
#include <ATen/ATen.h>

#include <cmath>

#include "models/families/family.h"
#include "models/io/config_reader.h"
#include "models/nn/attention.h"
#include "models/nn/decoder.h"
#include "models/nn/rms_norm.h"

namespace attnmux {
namespace {

// transformers 4 writes rope_theta, rope_local_base_freq and rope_scaling; 5 writes one table for each kind of layer.
void read_ropes(const JsonNode& root, ModelConfig& config) {
  config.rope.theta = read_positive_number(root, "rope_theta", 1e6);
  config.sliding_rope.theta = read_positive_number(root, "rope_local_base_freq", 1e4);
  if (root.has("rope_scaling")) config.rope = read_rope_parameters(root.at("rope_scaling"), config.rope);
  if (!root.has("rope_parameters")) return;
  for (const char* key : {"rope_theta", "rope_local_base_freq", "rope_scaling"}) {
    if (root.has(key)) root.at(key).fail("rope_parameters is there, too; remove one of them");
  }
  for (const auto& [name, table] : root.at("rope_parameters").members()) {
    if (name == "full_attention") {
      config.rope = read_rope_parameters(table, config.rope);
    } else if (name == "sliding_attention") {
      config.sliding_rope = read_rope_parameters(table, config.sliding_rope);
    } else if (!table.is_null()) {
      table.fail("expected are full_attention and sliding_attention");
    }
  }
}

// Every sixth layer is full, where the file does not say it layer by layer.
void read_layers(const JsonNode& root, ModelConfig& config) {
  config.sliding_window = read_sliding_window(root);
  const int64_t pattern = read_positive(root, "sliding_window_pattern", 6);
  for (int64_t layer = 0; !root.has("layer_types") && layer < config.num_hidden_layers; ++layer) {
    if ((layer + 1) % pattern == 0) continue;
    if (!config.sliding_window) root.at("sliding_window").fail("layers between the full ones need a window");
    config.layer_types[layer] = LayerType::kSliding;
  }
  read_layer_types(root, config);
}

ModelConfig read_config(const JsonNode& root) {
  ModelConfig config = read_decoder(root, {.activation_key = "hidden_activation",
                                           .activation = "gelu_pytorch_tanh",
                                           .max_position_embeddings = 131072,
                                           .head_dim = 256,
                                           .tie_word_embeddings = true,
                                           .own_rope = true});
  config.qkv_bias = config.o_bias = read_flag(root, "attention_bias", false);
  config.query_pre_attn_scalar = read_positive_number(root, "query_pre_attn_scalar", 256);
  read_ropes(root, config);
  read_layers(root, config);
  return config;
}

class Gemma3RMSNorm {
 public:
  Gemma3RMSNorm(ParameterSource& source, const std::string& path, int64_t size, double eps)
      : path_(path), weight_(source.take(path + ".weight", {size})), eps_(eps) {}

  // In low precision it multiplies before it rounds, where Llama's rounds before it multiplies.
  at::Tensor forward(const at::Tensor& x, const LayerContext& context) const {
    const at::ScalarType wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const at::Tensor y = rms_norm(x.flatten(0, -2).to(wide), weight_.to(wide) + 1, eps_);
    return context.observed(path_, y.to(x.scalar_type()).view(x.sizes()));
  }

 private:
  std::string path_;
  at::Tensor weight_;  // [size]
  double eps_;
};

at::Tensor geglu(const at::Tensor& gate, const at::Tensor& up) { return at::gelu(gate, "tanh") * up; }

class Gemma3Attention {
 public:
  Gemma3Attention(const ModelConfig& config, ParameterSource& source, const std::string& path)
      : path_(path),
        scale_(1 / std::sqrt(config.query_pre_attn_scalar)),
        project_(config, source, path),
        q_norm_(source, path + ".q_norm", config.head_dim, config.rms_norm_eps),
        k_norm_(source, path + ".k_norm", config.head_dim, config.rms_norm_eps) {}

  at::Tensor forward(const at::Tensor& hidden, const LayerContext& context) const {
    const at::Tensor q = apply_rope(q_norm_.forward(project_.q(hidden), context), context.rope);
    const at::Tensor k = apply_rope(k_norm_.forward(project_.k(hidden), context), context.rope);
    const AttendResult result = context.step.attend(path_, q, k, project_.v(hidden), {.softmax_scale = scale_});
    return context.observed(path_, project_.o(result.out));
  }

 private:
  std::string path_;
  double scale_;
  HeadProjections project_;
  Gemma3RMSNorm q_norm_, k_norm_;  // over each head
};

class Gemma3DecoderLayer {
 public:
  Gemma3DecoderLayer(const ModelConfig& config, ParameterSource& source, const std::string& path)
      : self_attn_(config, source, path + ".self_attn"),
        mlp_(source, path + ".mlp", {.hidden = config.hidden_size, .intermediate = config.intermediate_size}, geglu),
        input_layernorm_(source, path + ".input_layernorm", config.hidden_size, config.rms_norm_eps),
        post_attention_layernorm_(source, path + ".post_attention_layernorm", config.hidden_size, config.rms_norm_eps),
        pre_feedforward_layernorm_(source, path + ".pre_feedforward_layernorm", config.hidden_size,
                                   config.rms_norm_eps),
        post_feedforward_layernorm_(source, path + ".post_feedforward_layernorm", config.hidden_size,
                                    config.rms_norm_eps) {}

  at::Tensor forward(const at::Tensor& input, const LayerContext& context) const {
    const at::Tensor attended = self_attn_.forward(input_layernorm_.forward(input, context), context);
    const at::Tensor hidden = input + post_attention_layernorm_.forward(attended, context);
    const at::Tensor mixed = mlp_.forward(pre_feedforward_layernorm_.forward(hidden, context), context);
    return hidden + post_feedforward_layernorm_.forward(mixed, context);
  }

 private:
  Gemma3Attention self_attn_;
  GatedMLP mlp_;
  Gemma3RMSNorm input_layernorm_, post_attention_layernorm_, pre_feedforward_layernorm_, post_feedforward_layernorm_;
};

class Gemma3TextModel {
 public:
  Gemma3TextModel(const ModelConfig& config, ParameterSource& source, const std::string& path)
      : config_(config),
        path_(path),
        embed_tokens_(source.take(path + ".embed_tokens.weight", {config.vocab_size, config.hidden_size})),
        layers_(make_layers<Gemma3DecoderLayer>(config, source, path)),
        norm_(source, path + ".norm", config.hidden_size, config.rms_norm_eps) {}

  at::Tensor embed(const at::Tensor& input_ids, const ForwardOptions& options) const {
    // The scale is rounded to the weights' dtype first, as in transformers.
    const at::Tensor scale =
        at::scalar_tensor(std::sqrt(config_.hidden_size), at::kFloat).to(embed_tokens_.scalar_type());
    const at::Tensor embeds = at::embedding(embed_tokens_, input_ids) * scale.item();
    if (options.observe) options.observe(path_ + ".embed_tokens", embeds);
    return embeds;
  }

  at::Tensor forward(const at::Tensor& embeds, const at::Tensor& position_ids, StepContext& step,
                     const ForwardOptions& options) const {
    const at::ScalarType dtype = embeds.scalar_type();
    const RopeTable full = make_rope_table(config_.rope, config_.head_dim, position_ids, dtype);
    const RopeTable sliding = make_rope_table(config_.sliding_rope, config_.head_dim, position_ids, dtype);
    const auto context_of = [&](LayerType type) {
      return LayerContext{step, type == LayerType::kFull ? full : sliding, options};
    };

    at::Tensor hidden = embeds;
    for (size_t layer = 0; layer < layers_.size(); ++layer) {
      hidden = run_layer(layers_[layer], hidden, context_of(config_.layer_types[layer]));
    }
    return norm_.forward(hidden, context_of(LayerType::kFull));
  }

 private:
  ModelConfig config_;
  std::string path_;
  at::Tensor embed_tokens_;  // [vocab_size, hidden_size]
  std::vector<Gemma3DecoderLayer> layers_;
  Gemma3RMSNorm norm_;
};

}  // namespace

Family gemma3_family() { return decoder_family<Gemma3TextModel>("Gemma3ForCausalLM", "gemma3_text", read_config); }

}  // namespace attnmux
