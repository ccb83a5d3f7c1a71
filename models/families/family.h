// What a model family gives to the registry (families.h), and the decoder families' common part of it.
//
//   Family qwen2_family() { return decoder_family<Qwen2Model>("Qwen2ForCausalLM", "qwen2", read_config); }
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "attnmux/selection.h"
#include "models/io/json_node.h"
#include "models/io/model_config.h"
#include "models/nn/attention_use.h"
#include "models/nn/causal_lm.h"
#include "models/nn/parameter_source.h"

namespace attnmux {

struct Family {
  std::string architecture;  // "Qwen2ForCausalLM"
  std::string model_type;    // "qwen2"
  ModelConfig (*read_config)(const JsonNode& root) = nullptr;
  std::vector<ParameterSpec> (*parameters)(const ModelConfig& config) = nullptr;
  std::vector<AttentionModule> (*attention_modules)(const ModelConfig& config, const AttentionUse& use) = nullptr;
  // REQUIRES: `parameters` holds what `parameters(config)` lists, all of one dtype.
  std::unique_ptr<CausalLm> (*build)(const ModelConfig& config, ParameterStore parameters) = nullptr;
};

// MODEL_PATH + ".layers.N.self_attn" for each layer, role "language".
std::vector<AttentionModule> decoder_attention_modules(const ModelConfig& config, const AttentionUse& use,
                                                       const std::string& model_path);

// The input embedding's weight: "model.embed_tokens.weight", or inside the language model of one that reads images.
std::string embedding_name(const ModelConfig& config);

// Throws Error(kInvalidArgument) for images to a model that reads none.
void check_images(const ModelConfig& config, const ModelInput& input);

// LlamaForCausalLM of transformers: the model, and the output weights, which may be the embedding itself.
template <class Model>
class DecoderForCausalLM : public CausalLm {
 public:
  DecoderForCausalLM(const ModelConfig& config, ParameterStore parameters)
      : config_(config), parameters_(std::move(parameters)), model_(make_model(config_, parameters_)) {}

  static std::vector<ParameterSpec> list_parameters(const ModelConfig& config) {
    ParameterList list;
    Model(config, list, "model");
    if (!config.tie_word_embeddings) list.take("lm_head.weight", {config.vocab_size, config.hidden_size});
    return std::move(list).finish();
  }

  at::Tensor forward(const ModelInput& input, StepContext& step, const ForwardOptions& options) const override {
    check_images(config_, input);
    return model_.forward(input, step, options);
  }
  const at::Tensor& lm_head() const override {
    return parameters_.at(config_.tie_word_embeddings ? embedding_name(config_) : "lm_head.weight");
  }
  const ParameterStore& parameters() const override { return parameters_; }
  const ModelConfig& config() const override { return config_; }

 private:
  static Model make_model(const ModelConfig& config, const ParameterStore& parameters) {
    LoadedParameters source(parameters);
    return Model(config, source, "model");
  }

  ModelConfig config_;
  ParameterStore parameters_;
  Model model_;
};

template <class Model>
Family decoder_family(std::string architecture, std::string model_type, ModelConfig (*read_config)(const JsonNode&)) {
  return {.architecture = std::move(architecture),
          .model_type = std::move(model_type),
          .read_config = read_config,
          .parameters = DecoderForCausalLM<Model>::list_parameters,
          .attention_modules = [](const ModelConfig& config,
                                  const AttentionUse& use) { return decoder_attention_modules(config, use, "model"); },
          .build = [](const ModelConfig& config, ParameterStore parameters) -> std::unique_ptr<CausalLm> {
            return std::make_unique<DecoderForCausalLM<Model>>(config, std::move(parameters));
          }};
}

}  // namespace attnmux
