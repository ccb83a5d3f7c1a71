// config.json of a Hugging Face folder, as the typed value that a model is built from.
//
//   ModelConfig config = read_model_config("models/smollm2");       // models/families/families.h
//   config.num_hidden_layers;
//
// Fields are named as in config.json. One struct serves every family: what a family does not have stays at the value
// that changes nothing. Plain values, any thread.
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

// What a layer's attention sees of its document: all of it, or the last `sliding_window` keys.
enum class LayerType : uint8_t { kFull, kSliding };

// A tower that turns images into tokens (Qwen2.5-VL's).
struct VisionConfig {
  int64_t depth = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_heads = 0;
  int64_t out_hidden_size = 0;  // the language model's hidden_size
  int64_t in_channels = 3;
  int64_t patch_size = 14;
  int64_t temporal_patch_size = 2;
  int64_t spatial_merge_size = 2;  // patches a side that become one token
  int64_t merged_window = 4;       // tokens a side of a window
  std::vector<bool> full_layers;   // of each layer: attends the whole frame, not a window of it
  double rope_theta = 10000.0;
};

struct ModelConfig {
  std::string architecture;  // "LlamaForCausalLM": which family builds it
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;  // divides num_attention_heads
  int64_t head_dim = 0;             // even; may differ from hidden_size / num_attention_heads
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  RopeConfig rope;                        // of full layers, and of sliding ones where the family has one rope for both
  RopeConfig sliding_rope;                // of sliding layers in Gemma 3
  double query_pre_attn_scalar = 0;       // attention's scale is 1 / sqrt of it; head_dim but in Gemma 3
  std::vector<LayerType> layer_types;     // of each layer
  std::optional<int64_t> sliding_window;  // keys that a query of a sliding layer sees, itself included
  std::optional<VisionConfig> vision;     // a model that reads images
  std::vector<int64_t> mrope_section;     // with it: pairs of a head that turn with time, height and width
  int64_t image_token_id = 0;             // likewise: what stands in input_ids for each token of an image
  int64_t video_token_id = 0;             // likewise
  bool tie_word_embeddings = false;
  bool qkv_bias = false;  // q, k and v projections carry a bias, which the weights must hold
  bool o_bias = false;    // likewise the o projection
  std::optional<int64_t> bos_token_id;
  std::vector<int64_t> eos_token_ids;  // one or several
  std::string dtype;                   // "float32", "bfloat16", ... of the saved weights; empty: not given
  // `attn_implementation`, `_attn_implementation` or `backend.attn`; empty: not given.
  std::string attn_implementation;
  std::string attn_implementation_key;  // which of them, for messages: "_attn_implementation"
};

}  // namespace attnmux
