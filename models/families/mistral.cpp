// Follows transformers 5.23.0, models/mistral/modeling_mistral.py: Llama without biases whose layers all see a window
// where sliding_window is set. Like there, a config.json without the key has a window of 4096, one with null has none.
#include "models/families/family.h"
#include "models/io/config_reader.h"
#include "models/nn/attention.h"
#include "models/nn/decoder.h"

namespace attnmux {
namespace {

ModelConfig read_config(const JsonNode& root) {
  if (root.has("layer_types")) root.at("layer_types").fail("Mistral's layers are all alike; remove the key");
  ModelConfig config = read_decoder(root, {.max_position_embeddings = 4096 * 32});
  config.sliding_window = read_sliding_window(root);
  if (config.sliding_window) config.layer_types.assign(config.num_hidden_layers, LayerType::kSliding);
  return config;
}

using MistralAttention = RotaryAttention;
using MistralDecoderLayer = PreNormDecoderLayer<MistralAttention>;
using MistralModel = DecoderModel<MistralDecoderLayer>;

}  // namespace

Family mistral_family() { return decoder_family<MistralModel>("MistralForCausalLM", "mistral", read_config); }

}  // namespace attnmux
