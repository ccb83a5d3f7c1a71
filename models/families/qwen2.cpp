// Follows transformers 5.23.0, models/qwen2/modeling_qwen2.py: Llama whose q, k and v projections always carry a bias.
// Qwen2.5 is this architecture, too.
//
// With use_sliding_window the layers from max_window_layers on (or those that layer_types names) see a window.
#include "models/families/family.h"
#include "models/io/config_reader.h"
#include "models/nn/attention.h"
#include "models/nn/decoder.h"

namespace attnmux {
namespace {

ModelConfig read_config(const JsonNode& root) {
  ModelConfig config = read_decoder(root, {.max_position_embeddings = 32768});
  config.qkv_bias = true;
  read_window_of_last_layers(root, config);
  return config;
}

using Qwen2Attention = RotaryAttention;
using Qwen2DecoderLayer = PreNormDecoderLayer<Qwen2Attention>;
using Qwen2Model = DecoderModel<Qwen2DecoderLayer>;

}  // namespace

Family qwen2_family() { return decoder_family<Qwen2Model>("Qwen2ForCausalLM", "qwen2", read_config); }

}  // namespace attnmux
