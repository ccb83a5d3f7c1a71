// The Llama family: transformers' LlamaForCausalLM, parameter names one to one.
//
//   LlamaConfig config = read_llama_config(dir);
//   auto modules = llama_attention_modules(config, use);            // before weights load: selection, `explain`
//   std::unique_ptr<CausalLm> model = load_llama(dir, {.dtype = at::kFloat});
//   at::Tensor hidden = model->forward({ids, positions}, step, {});  // [tokens, hidden_size]
//
// Covers GQA, tied and untied embeddings, attention biases, head_dim apart from hidden_size, rope types default, linear
// and llama3. See CausalLm for threads and ownership.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "attnmux/selection.h"
#include "models/io/hf_config.h"
#include "models/nn/attention_use.h"
#include "models/nn/causal_lm.h"
#include "models/nn/parameter_store.h"

namespace attnmux {

// Every parameter of the model with its shape, in the order of the layers.
std::vector<ParameterSpec> llama_parameters(const LlamaConfig& config);

// Tensors that checkpoints of this family may hold beside the parameters.
std::vector<IgnoredTensor> llama_ignored(const LlamaConfig& config);

// "model.layers.N.self_attn" for each layer, role and mask key "language".
std::vector<AttentionModule> llama_attention_modules(const LlamaConfig& config, const AttentionUse& use);

// Reads config.json and the weights of a Hugging Face folder. Errors: those of read_llama_config and
// ParameterStore::load.
std::unique_ptr<CausalLm> load_llama(const std::string& dir, const LoadOptions& options);

class LlamaForCausalLM : public CausalLm {
 public:
  // REQUIRES: `parameters` holds llama_parameters(config), all of one dtype.
  LlamaForCausalLM(const LlamaConfig& config, ParameterStore parameters);
  ~LlamaForCausalLM() override;

  at::Tensor forward(const ModelInput& input, StepContext& step, const ForwardOptions& options) const override;
  const at::Tensor& lm_head() const override;
  const ParameterStore& parameters() const override { return parameters_; }

 private:
  class Model;
  LlamaConfig config_;
  ParameterStore parameters_;
  std::unique_ptr<const Model> model_;
};

}  // namespace attnmux
