// Follows transformers 5.23.0, models/llama/modeling_llama.py, class by class: Attention, DecoderLayer, Model,
// ForCausalLM.
//
// Covers GQA, tied and untied embeddings, attention biases, head_dim apart from hidden_size, rope types default, linear
// and llama3.
#include "models/families/family.h"
#include "models/io/config_reader.h"
#include "models/nn/attention.h"
#include "models/nn/decoder.h"

namespace attnmux {
namespace {

ModelConfig read_config(const JsonNode& root) {
  ModelConfig config = read_decoder(root, {});
  config.qkv_bias = config.o_bias = read_flag(root, "attention_bias", false);
  refuse_sliding_layers(root);
  return config;
}

using LlamaAttention = RotaryAttention;
using LlamaDecoderLayer = PreNormDecoderLayer<LlamaAttention>;
using LlamaModel = DecoderModel<LlamaDecoderLayer>;

}  // namespace

Family llama_family() { return decoder_family<LlamaModel>("LlamaForCausalLM", "llama", read_config); }

}  // namespace attnmux
