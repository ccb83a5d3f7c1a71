// config.json of a Hugging Face folder, as the typed value that a model is built from.
//
//   LlamaConfig config = read_llama_config("models/smollm2");       // reads models/smollm2/config.json
//
// Field names and defaults follow transformers' LlamaConfig; keys that ask for something that is not built (sliding
// window, unknown rope type, quantization, ...) are errors, never ignored. Plain values, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace attnmux {

enum class RopeType : uint8_t { kDefault, kLinear, kLlama3 };

// Rotary embedding; formulas: transformers modeling_rope_utils.py.
struct RopeConfig {
  RopeType type = RopeType::kDefault;
  double theta = 10000.0;
  double factor = 1.0;                           // kLinear, kLlama3
  double low_freq_factor = 1.0;                  // kLlama3
  double high_freq_factor = 4.0;                 // kLlama3
  int64_t original_max_position_embeddings = 0;  // kLlama3
};

struct LlamaConfig {
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;  // divides num_attention_heads
  int64_t head_dim = 0;             // even; may differ from hidden_size / num_attention_heads
  int64_t max_position_embeddings = 2048;
  double rms_norm_eps = 1e-6;
  RopeConfig rope;
  bool tie_word_embeddings = false;
  bool attention_bias = false;  // q, k, v and o projections carry a bias, which the weights must hold
  std::optional<int64_t> bos_token_id;
  std::vector<int64_t> eos_token_ids;  // one or several
  std::string dtype;                   // "float32", "bfloat16", ... of the saved weights; empty: not given
  // `attn_implementation`, `_attn_implementation` or `backend.attn`; empty: not given.
  std::string attn_implementation;
  std::string attn_implementation_key;  // which of them, for messages: "_attn_implementation"
};

// Reads DIR/config.json. Throws Error(kBadFile) when it is missing or not JSON (with line and column), Error(kConfig)
// naming file and key, the value, and what is allowed.
LlamaConfig read_llama_config(const std::string& dir);

// The same from text; `file_name` is for messages.
LlamaConfig parse_llama_config(const std::string& text, const std::string& file_name);

}  // namespace attnmux
