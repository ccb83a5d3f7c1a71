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
#include "models/nn/check_input.h"
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

// Throws Error(kInvalidArgument): images for a model that reads none.
[[noreturn]] void refuse_images(const ModelConfig& config);

// LlamaForCausalLM of transformers: the model, and the output weights, which may be the embedding itself. A Model has
// embed(input_ids, options) and forward(embeds, position_ids, step, options).
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
    check_input(config_, input);
    if (input.inputs_embeds.defined()) return model_.forward(input.inputs_embeds, input.position_ids, step, options);
    const at::Tensor images =
        input.image_grids.empty() ? at::Tensor() : image_tokens(input.pixel_values, input.image_grids, step, options);
    return model_.forward(embed(input.input_ids, images, options), input.position_ids, step, options);
  }
  at::Tensor embed(const at::Tensor& input_ids, const at::Tensor& image_tokens,
                   const ForwardOptions& options) const override {
    if (image_tokens.defined()) refuse_images(config_);
    return model_.embed(input_ids, options);
  }
  at::Tensor image_tokens(const at::Tensor& /*pixel_values*/, const std::vector<ImageGrid>& /*grids*/,
                          StepContext& /*step*/, const ForwardOptions& /*options*/) const override {
    refuse_images(config_);
  }
  const at::Tensor& lm_head() const override {
    return parameters_.at(config_.tie_word_embeddings ? embedding_name(config_) : "lm_head.weight");
  }
  const ParameterStore& parameters() const override { return parameters_; }
  const ModelConfig& config() const override { return config_; }

 protected:
  const Model& model() const { return model_; }

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
