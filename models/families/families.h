// Models by the architecture that their config.json names: "LlamaForCausalLM", "Qwen2ForCausalLM", ...
//
//   ModelConfig config = read_model_config("models/smollm2");       // reads models/smollm2/config.json
//   auto modules = attention_modules(config, use);                  // before weights load: selection, `explain`
//   std::unique_ptr<CausalLm> model = load_causal_lm("models/smollm2", {.dtype = at::kFloat});
//
// Parameter names are those of transformers, one to one. The list of families is in families.cpp. Pure but for reading
// files, any thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "models/families/family.h"

namespace attnmux {

const std::vector<Family>& families();

// Reads DIR/config.json. Throws Error(kBadFile) when it is missing or not JSON (with line and column), Error(kConfig)
// naming file and key, the value, and what is allowed; for an unknown architecture the known ones.
ModelConfig read_model_config(const std::string& dir);

// The same from text; `file_name` is for messages.
ModelConfig parse_model_config(const std::string& text, const std::string& file_name);

// Every parameter of the model with its shape, in the order of the layers.
std::vector<ParameterSpec> model_parameters(const ModelConfig& config);

// Each attention module with its role, its mask and what its calls may bring.
std::vector<AttentionModule> attention_modules(const ModelConfig& config, const AttentionUse& use);

// Reads config.json and the weights of a Hugging Face folder. Errors: those of read_model_config and
// ParameterStore::load.
std::unique_ptr<CausalLm> load_causal_lm(const std::string& dir, const LoadOptions& options);

}  // namespace attnmux
