// Follows transformers 5.23.0, models/llama/modeling_llama.py, class by class: RMSNorm, RotaryEmbedding, MLP,
// Attention, DecoderLayer, Model, ForCausalLM. The batch is one packed sequence, so tensors are [tokens, ...] without a
// batch dimension, and the mask is the step's business.
#include "models/llama/llama.h"

#include <optional>
#include <string>
#include <utility>

#include "models/nn/activation_checkpoint.h"
#include "models/nn/rms_norm.h"
#include "models/nn/rope.h"
#include "models/nn/swiglu.h"

namespace attnmux {
namespace {

// What one forward pass hands down to its layers.
struct Pass {
  StepContext& step;
  const RopeTable& rope;
  const ForwardOptions& options;

  const at::Tensor& observed(const std::string& path, const at::Tensor& output) const {
    if (options.observe) options.observe(path, output);
    return output;
  }
};

class LlamaRMSNorm {
 public:
  LlamaRMSNorm(const LlamaConfig& config, const ParameterStore& parameters, const std::string& path)
      : path_(path), weight_(parameters.at(path + ".weight")), eps_(config.rms_norm_eps) {}

  at::Tensor forward(const at::Tensor& hidden, const Pass& pass) const {
    return pass.observed(path_, rms_norm(hidden, weight_, eps_));
  }

 private:
  std::string path_;
  at::Tensor weight_;  // [hidden_size]
  double eps_;
};

class LlamaRotaryEmbedding {
 public:
  explicit LlamaRotaryEmbedding(const LlamaConfig& config) : rope_(config.rope), head_dim_(config.head_dim) {}

  RopeTable forward(const at::Tensor& position_ids, at::ScalarType dtype) const {
    return make_rope_table(rope_, head_dim_, position_ids, dtype);
  }

 private:
  RopeConfig rope_;
  int64_t head_dim_;
};

class Linear {
 public:
  Linear(const ParameterStore& parameters, const std::string& path, bool has_bias)
      : weight_(parameters.at(path + ".weight")) {
    if (has_bias) bias_ = parameters.at(path + ".bias");
  }

  at::Tensor forward(const at::Tensor& x) const { return at::linear(x, weight_, bias_); }

 private:
  at::Tensor weight_;  // [out, in]
  std::optional<at::Tensor> bias_;
};

class LlamaMLP {
 public:
  LlamaMLP(const ParameterStore& parameters, const std::string& path)
      : path_(path),
        gate_proj_(parameters, path + ".gate_proj", /*has_bias=*/false),
        up_proj_(parameters, path + ".up_proj", /*has_bias=*/false),
        down_proj_(parameters, path + ".down_proj", /*has_bias=*/false) {}

  at::Tensor forward(const at::Tensor& x, const Pass& pass) const {
    return pass.observed(path_, down_proj_.forward(swiglu(gate_proj_.forward(x), up_proj_.forward(x))));
  }

 private:
  std::string path_;
  Linear gate_proj_, up_proj_, down_proj_;
};

class LlamaAttention {
 public:
  LlamaAttention(const LlamaConfig& config, const ParameterStore& parameters, const std::string& path)
      : path_(path),
        head_dim_(config.head_dim),
        q_proj_(parameters, path + ".q_proj", config.attention_bias),
        k_proj_(parameters, path + ".k_proj", config.attention_bias),
        v_proj_(parameters, path + ".v_proj", config.attention_bias),
        o_proj_(parameters, path + ".o_proj", config.attention_bias) {}

  at::Tensor forward(const at::Tensor& hidden, const Pass& pass) const {
    const int64_t tokens = hidden.size(0);
    at::Tensor q = q_proj_.forward(hidden).view({tokens, -1, head_dim_});
    at::Tensor k = k_proj_.forward(hidden).view({tokens, -1, head_dim_});
    const at::Tensor v = v_proj_.forward(hidden).view({tokens, -1, head_dim_});
    q = apply_rope(q, pass.rope);
    k = apply_rope(k, pass.rope);
    const AttendResult result = pass.step.attend(path_, q, k, v, {});  // scale: 1 / sqrt(head_dim)
    return pass.observed(path_, o_proj_.forward(result.out.reshape({tokens, -1})));
  }

 private:
  std::string path_;  // "model.layers.N.self_attn": the name that selection and ledger know
  int64_t head_dim_;
  Linear q_proj_, k_proj_, v_proj_, o_proj_;
};

std::string layer_path(int64_t layer) { return "model.layers." + std::to_string(layer); }

class LlamaDecoderLayer {
 public:
  LlamaDecoderLayer(const LlamaConfig& config, const ParameterStore& parameters, const std::string& path)
      : self_attn_(config, parameters, path + ".self_attn"),
        mlp_(parameters, path + ".mlp"),
        input_layernorm_(config, parameters, path + ".input_layernorm"),
        post_attention_layernorm_(config, parameters, path + ".post_attention_layernorm") {}

  at::Tensor forward(const at::Tensor& input, const Pass& pass) const {
    const at::Tensor hidden = input + self_attn_.forward(input_layernorm_.forward(input, pass), pass);
    return hidden + mlp_.forward(post_attention_layernorm_.forward(hidden, pass), pass);
  }

 private:
  LlamaAttention self_attn_;
  LlamaMLP mlp_;
  LlamaRMSNorm input_layernorm_, post_attention_layernorm_;
};

}  // namespace

// LlamaModel of the HF file.
class LlamaForCausalLM::Model {
 public:
  Model(const LlamaConfig& config, const ParameterStore& parameters)
      : embed_tokens_(parameters.at("model.embed_tokens.weight")),
        norm_(config, parameters, "model.norm"),
        rotary_emb_(config) {
    for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
      layers_.emplace_back(config, parameters, layer_path(layer));
    }
  }

  at::Tensor forward(const ModelInput& input, StepContext& step, const ForwardOptions& options) const {
    const RopeTable rope = rotary_emb_.forward(input.position_ids, embed_tokens_.scalar_type());
    const Pass pass{step, rope, options};
    at::Tensor hidden = pass.observed("model.embed_tokens", at::embedding(embed_tokens_, input.input_ids));
    for (const LlamaDecoderLayer& layer : layers_) {
      hidden = options.activation_checkpointing ? checkpointed(layer, hidden, rope, step) : layer.forward(hidden, pass);
    }
    return norm_.forward(hidden, pass);
  }

 private:
  // The copied table keeps what the second run needs alive until backward.
  static at::Tensor checkpointed(const LlamaDecoderLayer& layer, const at::Tensor& hidden, const RopeTable& rope,
                                 StepContext& step) {
    return activation_checkpoint(step, hidden, [&layer, &step, rope](const at::Tensor& x) {
      return layer.forward(x, Pass{step, rope, ForwardOptions{}});
    });
  }

  at::Tensor embed_tokens_;  // [vocab_size, hidden_size]
  std::vector<LlamaDecoderLayer> layers_;
  LlamaRMSNorm norm_;
  LlamaRotaryEmbedding rotary_emb_;
};

LlamaForCausalLM::LlamaForCausalLM(const LlamaConfig& config, ParameterStore parameters)
    : config_(config),
      parameters_(std::move(parameters)),
      model_(std::make_unique<const Model>(config_, parameters_)) {}

LlamaForCausalLM::~LlamaForCausalLM() = default;

at::Tensor LlamaForCausalLM::forward(const ModelInput& input, StepContext& step, const ForwardOptions& options) const {
  return model_->forward(input, step, options);
}

const at::Tensor& LlamaForCausalLM::lm_head() const {
  return parameters_.at(config_.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight");
}

std::unique_ptr<CausalLm> load_llama(const std::string& dir, const LoadOptions& options) {
  const LlamaConfig config = read_llama_config(dir);
  return std::make_unique<LlamaForCausalLM>(
      config, ParameterStore::load(dir, llama_parameters(config), llama_ignored(config), options));
}

std::vector<ParameterSpec> llama_parameters(const LlamaConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t intermediate = config.intermediate_size;
  const int64_t q_size = config.num_attention_heads * config.head_dim;
  const int64_t kv_size = config.num_key_value_heads * config.head_dim;
  std::vector<ParameterSpec> specs = {{"model.embed_tokens.weight", {config.vocab_size, hidden}}};
  const auto add_projection = [&](const std::string& path, int64_t out, int64_t in) {
    specs.push_back({path + ".weight", {out, in}});
    if (config.attention_bias) specs.push_back({path + ".bias", {out}});
  };
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const std::string path = layer_path(layer);
    add_projection(path + ".self_attn.q_proj", q_size, hidden);
    add_projection(path + ".self_attn.k_proj", kv_size, hidden);
    add_projection(path + ".self_attn.v_proj", kv_size, hidden);
    add_projection(path + ".self_attn.o_proj", hidden, q_size);
    specs.push_back({path + ".mlp.gate_proj.weight", {intermediate, hidden}});
    specs.push_back({path + ".mlp.up_proj.weight", {intermediate, hidden}});
    specs.push_back({path + ".mlp.down_proj.weight", {hidden, intermediate}});
    specs.push_back({path + ".input_layernorm.weight", {hidden}});
    specs.push_back({path + ".post_attention_layernorm.weight", {hidden}});
  }
  specs.push_back({"model.norm.weight", {hidden}});
  if (!config.tie_word_embeddings) specs.push_back({"lm_head.weight", {config.vocab_size, hidden}});
  return specs;
}

std::vector<IgnoredTensor> llama_ignored(const LlamaConfig& config) {
  std::vector<IgnoredTensor> ignored = {{.suffix = ".rotary_emb.inv_freq", .same_as = ""}};
  if (config.tie_word_embeddings)
    ignored.push_back({.suffix = "lm_head.weight", .same_as = "model.embed_tokens.weight"});
  return ignored;
}

std::vector<AttentionModule> llama_attention_modules(const LlamaConfig& config, const AttentionUse& use) {
  AttentionRequest request;
  request.masks = use.masks;
  request.empty_rows = use.empty_rows;
  request.dtype = use.dtype;
  request.device = use.device;
  request.max_tokens = use.max_tokens;
  request.training = use.training;
  request.heads_q = config.num_attention_heads;
  request.heads_kv = config.num_key_value_heads;
  request.head_dim = config.head_dim;
  std::vector<AttentionModule> modules;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    modules.push_back({layer_path(layer) + ".self_attn", "language", "language", request});
  }
  return modules;
}

}  // namespace attnmux
