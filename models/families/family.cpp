#include "models/families/family.h"

#include "attnmux/error.h"
#include "models/nn/decoder.h"
#include "models/nn/layer_masks.h"

namespace attnmux {
namespace {

AttentionRequest request_of(const ModelConfig& config, const AttentionUse& use) {
  AttentionRequest request;
  request.masks = use.masks;
  request.empty_rows = use.empty_rows;
  request.dtype = use.dtype;
  request.device = use.device;
  request.max_tokens = use.max_tokens;
  request.training = use.training;
  request.cp_size = use.cp_size;
  request.heads_q = config.num_attention_heads;
  request.heads_kv = config.num_key_value_heads;
  request.head_dim = config.head_dim;
  return request;
}

}  // namespace

std::string embedding_name(const ModelConfig& config) {
  return config.vision ? "model.language_model.embed_tokens.weight" : "model.embed_tokens.weight";
}

void refuse_images(const ModelConfig& config) {
  throw Error(ErrorCode::kInvalidArgument, config.architecture + " reads text alone, it has no tower for images");
}

std::vector<AttentionModule> decoder_attention_modules(const ModelConfig& config, const AttentionUse& use,
                                                       const std::string& model_path) {
  std::vector<AttentionModule> modules;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const LayerType type = config.layer_types[layer];
    modules.push_back({layer_path(model_path, layer) + ".self_attn", "language", mask_key(type),
                       request_of(config, use_of(type, use))});
  }
  return modules;
}

}  // namespace attnmux
