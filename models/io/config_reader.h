// What the readers of config.json share: a family's reader takes the decoder that all have, then its own keys.
//
//   ModelConfig read_config(const JsonNode& root) {
//     ModelConfig config = read_decoder(root, {.max_position_embeddings = 32768});
//     read_window_of_last_layers(root, config);
//     return config;
//   }
//
// Names and defaults follow transformers. A key that asks for something that is not built (unknown rope type,
// quantization, ...) is an error, never ignored: Error(kConfig) naming file and key, the value, and what is allowed.
// Pure functions, any thread.
#pragma once

#include <string>

#include "models/io/json_node.h"
#include "models/io/model_config.h"

namespace attnmux {

// Where families differ in keys that all have.
struct DecoderKeys {
  std::string activation_key = "hidden_act";
  std::string activation = "silu";
  int64_t max_position_embeddings = 2048;  // where the file has none
  int64_t head_dim = 0;                    // likewise; 0: hidden_size / num_attention_heads
  bool tie_word_embeddings = false;        // likewise
  bool own_rope = false;                   // the family reads rope_parameters itself
};

// Sizes, heads, norm, rope, special tokens; every layer is full.
ModelConfig read_decoder(const JsonNode& root, const DecoderKeys& keys);

// Rope of a table with rope_theta, rope_type and the type's own keys; nothing of it is required.
RopeConfig read_rope_parameters(const JsonNode& table, RopeConfig defaults);

// Throws where sliding_window or layer_types ask for what the family does not have.
void refuse_sliding_layers(const JsonNode& root);

// layer_types, where the file has it: one name for each layer. Throws where one slides without a sliding_window.
void read_layer_types(const JsonNode& root, ModelConfig& config);

// use_sliding_window, sliding_window and max_window_layers of Qwen: the layers from max_window_layers on slide.
void read_window_of_last_layers(const JsonNode& root, ModelConfig& config);

// sliding_window: 4096 where the key is missing, none where it is null.
std::optional<int64_t> read_sliding_window(const JsonNode& root);

int64_t read_positive(const JsonNode& root, const std::string& key, int64_t otherwise);
double read_positive_number(const JsonNode& root, const std::string& key, double otherwise);
bool read_flag(const JsonNode& root, const std::string& key, bool otherwise);

}  // namespace attnmux
