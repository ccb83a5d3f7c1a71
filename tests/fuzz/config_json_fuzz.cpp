// config.json: any bytes give an Error or a config that a model can be built from.
#include <cstdlib>

#include "attnmux/error.h"
#include "models/io/config_reader.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace attnmux;
  try {
    const JsonNode root =
        JsonNode::parse({reinterpret_cast<const char*>(data), size}, "config.json", ErrorCode::kConfig);
    ModelConfig config = read_decoder(root, {});
    read_window_of_last_layers(root, config);
    const bool sound = config.vocab_size > 0 && config.hidden_size > 0 && config.intermediate_size > 0 &&
                       config.num_hidden_layers > 0 && config.num_key_value_heads > 0 && config.head_dim > 0 &&
                       config.head_dim % 2 == 0 && config.num_attention_heads % config.num_key_value_heads == 0 &&
                       config.max_position_embeddings > 0 && config.rms_norm_eps > 0 && config.rope.theta > 0 &&
                       config.rope.factor > 0 && config.sliding_window.value_or(1) > 0 &&
                       config.layer_types.size() == static_cast<size_t>(config.num_hidden_layers);
    if (!sound) std::abort();
  } catch (const Error&) {
  }
  return 0;
}
