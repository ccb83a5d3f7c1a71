#include "models/io/config_reader.h"

#include <algorithm>
#include <utility>

namespace attnmux {
namespace {

constexpr int64_t kMaxLayers = 10000;

int64_t positive(const JsonNode& value) {
  if (value.integer() <= 0) value.fail("a positive integer is expected");
  return value.integer();
}

double positive_number(const JsonNode& value) {
  if (!(value.number() > 0)) value.fail("a positive number is expected");
  return value.number();
}

// Each asks for a computation that would be left out silently.
void check_nothing_unbuilt(const JsonNode& root, const DecoderKeys& keys) {
  if (root.has(keys.activation_key) && root.at(keys.activation_key).text() != keys.activation) {
    root.at(keys.activation_key).fail("built is \"" + keys.activation + "\"");
  }
  for (const char* key :
       {"mlp_bias", "is_encoder_decoder", "add_cross_attention", "rope_interleaved", "use_bidirectional_attention"}) {
    if (read_flag(root, key, false)) root.at(key).fail("this is not built; false is");
  }
  for (const char* key : {"quantization_config", "attn_logit_softcapping", "final_logit_softcapping"}) {
    if (root.has(key)) root.at(key).fail("this is not built; it must be null or absent");
  }
  if (root.has("pretraining_tp") && root.at("pretraining_tp").integer() != 1) {
    root.at("pretraining_tp").fail("built is 1: projections in one piece");
  }
  if (root.has("attention_dropout") && root.at("attention_dropout").number() != 0) {
    root.at("attention_dropout").fail("attention dropout is not built; 0 is");
  }
}

void check_partial_rotary(const JsonNode& object) {
  if (object.has("partial_rotary_factor") && object.at("partial_rotary_factor").number() != 1) {
    object.at("partial_rotary_factor").fail("rotary embedding of a part of the head is not built; 1 is");
  }
}

RopeType rope_type(const JsonNode& scaling) {
  const bool newer = scaling.has("rope_type");
  if (newer && scaling.has("type") && scaling.at("type").text() != scaling.at("rope_type").text()) {
    scaling.at("type").fail("rope_type says \"" + scaling.at("rope_type").text() + "\"; remove one of them");
  }
  if (!newer && !scaling.has("type")) return RopeType::kDefault;
  const JsonNode name = scaling.at(newer ? "rope_type" : "type");
  if (name.text() == "default") return RopeType::kDefault;
  if (name.text() == "linear") return RopeType::kLinear;
  if (name.text() == "llama3") return RopeType::kLlama3;
  name.fail("built are default, linear and llama3");
}

// `scaling`: rope_scaling of transformers 4, or rope_parameters of transformers 5.
void read_rope_scaling(const JsonNode& scaling, RopeConfig& rope) {
  std::vector<std::string> known = {"rope_type", "type", "rope_theta", "partial_rotary_factor"};
  rope.type = rope_type(scaling);
  check_partial_rotary(scaling);
  if (rope.type != RopeType::kDefault) {
    known.push_back("factor");
    rope.factor = positive_number(scaling.at("factor"));
  }
  if (rope.type == RopeType::kLlama3) {
    known.insert(known.end(), {"low_freq_factor", "high_freq_factor", "original_max_position_embeddings"});
    rope.low_freq_factor = positive_number(scaling.at("low_freq_factor"));
    rope.high_freq_factor = positive_number(scaling.at("high_freq_factor"));
    rope.original_max_position_embeddings = positive(scaling.at("original_max_position_embeddings"));
    if (rope.high_freq_factor <= rope.low_freq_factor) {
      scaling.at("high_freq_factor")
          .fail("it must exceed low_freq_factor, which is " + std::to_string(rope.low_freq_factor));
    }
  }
  for (const auto& [key, value] : scaling.members()) {
    if (!value.is_null() && std::find(known.begin(), known.end(), key) == known.end()) {
      value.fail("this rope type does not have the key, which would be ignored; remove it");
    }
  }
}

RopeConfig read_rope(const JsonNode& root) {
  RopeConfig rope;
  check_partial_rotary(root);
  if (root.has("rope_theta")) rope.theta = positive_number(root.at("rope_theta"));
  if (root.has("rope_parameters") && root.has("rope_scaling")) {
    root.at("rope_scaling").fail("rope_parameters is there, too; remove one of them");
  }
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!root.has(key)) continue;
    const JsonNode scaling = root.at(key);
    read_rope_scaling(scaling, rope);
    if (!scaling.has("rope_theta")) continue;
    const double theta = positive_number(scaling.at("rope_theta"));
    if (root.has("rope_theta") && theta != rope.theta) {
      scaling.at("rope_theta").fail("the top level says " + std::to_string(rope.theta) + "; remove one of them");
    }
    rope.theta = theta;
  }
  return rope;
}

void read_heads(const JsonNode& root, int64_t default_head_dim, ModelConfig& config) {
  config.num_attention_heads = positive(root.at("num_attention_heads"));
  config.num_key_value_heads = read_positive(root, "num_key_value_heads", config.num_attention_heads);
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    root.at("num_key_value_heads")
        .fail("it must divide num_attention_heads, which is " + std::to_string(config.num_attention_heads));
  }
  if (root.has("head_dim") || default_head_dim > 0) {
    config.head_dim = read_positive(root, "head_dim", default_head_dim);
    if (config.head_dim % 2 != 0) root.at("head_dim").fail("rotary embedding needs an even number");
    return;
  }
  config.head_dim = config.hidden_size / config.num_attention_heads;
  if (config.hidden_size % config.num_attention_heads != 0 || config.head_dim % 2 != 0) {
    root.at("hidden_size")
        .fail("without head_dim, an even multiple of num_attention_heads is expected, which is " +
              std::to_string(config.num_attention_heads));
  }
}

void read_special_ids(const JsonNode& root, ModelConfig& config) {
  const auto token_id = [&](const JsonNode& value) {
    if (value.integer() < 0 || value.integer() >= config.vocab_size) {
      value.fail("a token id from 0 to " + std::to_string(config.vocab_size - 1) + " is expected");
    }
    return value.integer();
  };
  if (root.has("bos_token_id")) config.bos_token_id = token_id(root.at("bos_token_id"));
  if (!root.has("eos_token_id")) return;
  const JsonNode eos = root.at("eos_token_id");
  if (!eos.is_array()) {
    config.eos_token_ids = {token_id(eos)};
    return;
  }
  for (const JsonNode& id : eos.elements()) config.eos_token_ids.push_back(token_id(id));
}

// "backend": {"attn": ...} is NeMo Automodel's spelling.
void read_attn_implementation(const JsonNode& root, ModelConfig& config) {
  const auto take = [&](const JsonNode& value) {
    if (!config.attn_implementation_key.empty() && config.attn_implementation != value.text()) {
      value.fail(config.attn_implementation_key + " says \"" + config.attn_implementation + "\"; remove one of them");
    }
    config.attn_implementation = value.text();
    config.attn_implementation_key = value.path();
  };
  for (const char* key : {"attn_implementation", "_attn_implementation"}) {
    if (root.has(key)) take(root.at(key));
  }
  if (!root.has("backend")) return;
  const JsonNode backend = root.at("backend");
  if (!backend.is_object()) {
    backend.fail("an object like {\"attn\": \"magi\"} is expected; a name alone is the value of attn_implementation");
  }
  if (backend.has("attn")) take(backend.at("attn"));
}

LayerType layer_type(const JsonNode& name) {
  if (name.text() == "full_attention") return LayerType::kFull;
  if (name.text() == "sliding_attention") return LayerType::kSliding;
  name.fail("built are \"full_attention\" and \"sliding_attention\"");
}

void check_layer_count(const JsonNode& names, int64_t layers) {
  if (static_cast<int64_t>(names.elements().size()) == layers) return;
  names.fail("it has " + std::to_string(names.elements().size()) +
             " names, one for each layer is expected; num_hidden_layers is " + std::to_string(layers));
}

bool is_present(const JsonNode& object, const std::string& key) {
  for (const auto& [name, value] : object.members()) {
    if (name == key) return true;
  }
  return false;
}

}  // namespace

int64_t read_positive(const JsonNode& root, const std::string& key, int64_t otherwise) {
  return root.has(key) ? positive(root.at(key)) : otherwise;
}

double read_positive_number(const JsonNode& root, const std::string& key, double otherwise) {
  return root.has(key) ? positive_number(root.at(key)) : otherwise;
}

bool read_flag(const JsonNode& root, const std::string& key, bool otherwise) {
  return root.has(key) ? root.at(key).boolean() : otherwise;
}

RopeConfig read_rope_parameters(const JsonNode& table, RopeConfig defaults) {
  read_rope_scaling(table, defaults);
  defaults.theta = read_positive_number(table, "rope_theta", defaults.theta);
  return defaults;
}

ModelConfig read_decoder(const JsonNode& root, const DecoderKeys& keys) {
  check_nothing_unbuilt(root, keys);
  ModelConfig config;
  config.vocab_size = positive(root.at("vocab_size"));
  config.hidden_size = positive(root.at("hidden_size"));
  config.intermediate_size = positive(root.at("intermediate_size"));
  config.num_hidden_layers = positive(root.at("num_hidden_layers"));
  if (config.num_hidden_layers > kMaxLayers) {
    root.at("num_hidden_layers").fail("at most " + std::to_string(kMaxLayers) + " layers are expected");
  }
  read_heads(root, keys.head_dim, config);
  config.query_pre_attn_scalar = static_cast<double>(config.head_dim);
  config.max_position_embeddings = read_positive(root, "max_position_embeddings", keys.max_position_embeddings);
  config.rms_norm_eps = read_positive_number(root, "rms_norm_eps", config.rms_norm_eps);
  check_partial_rotary(root);
  if (!keys.own_rope) config.rope = read_rope(root);
  config.layer_types.assign(config.num_hidden_layers, LayerType::kFull);
  config.tie_word_embeddings = read_flag(root, "tie_word_embeddings", keys.tie_word_embeddings);
  read_special_ids(root, config);
  if (root.has("torch_dtype")) config.dtype = root.at("torch_dtype").text();
  if (root.has("dtype")) config.dtype = root.at("dtype").text();
  read_attn_implementation(root, config);
  return config;
}

void refuse_sliding_layers(const JsonNode& root) {
  if (root.has("sliding_window") && read_flag(root, "use_sliding_window", true)) {
    root.at("sliding_window")
        .fail(
            "sliding window attention is not built for this model, and would be ignored; "
            "set it to null if the model does not use it");
  }
  if (!root.has("layer_types")) return;
  for (const JsonNode& type : root.at("layer_types").elements()) {
    if (type.text() != "full_attention") type.fail("built is \"full_attention\"");
  }
  check_layer_count(root.at("layer_types"), root.at("num_hidden_layers").integer());
}

void read_layer_types(const JsonNode& root, ModelConfig& config) {
  if (!root.has("layer_types")) return;
  const std::vector<JsonNode> names = root.at("layer_types").elements();
  check_layer_count(root.at("layer_types"), config.num_hidden_layers);
  for (size_t layer = 0; layer < names.size(); ++layer) {
    config.layer_types[layer] = layer_type(names[layer]);
    if (config.layer_types[layer] == LayerType::kSliding && !config.sliding_window) {
      names[layer].fail("such a layer needs a sliding_window (and use_sliding_window, where the model has it)");
    }
  }
}

std::optional<int64_t> read_sliding_window(const JsonNode& root) {
  if (is_present(root, "sliding_window") && !root.has("sliding_window")) return std::nullopt;
  return read_positive(root, "sliding_window", 4096);
}

void read_window_of_last_layers(const JsonNode& root, ModelConfig& config) {
  if (read_flag(root, "use_sliding_window", false)) config.sliding_window = read_sliding_window(root);
  const int64_t first = root.has("max_window_layers") ? root.at("max_window_layers").integer() : 28;
  if (first < 0) root.at("max_window_layers").fail("a number of layers is expected");
  for (int64_t layer = first; config.sliding_window && layer < config.num_hidden_layers; ++layer) {
    config.layer_types[layer] = LayerType::kSliding;
  }
  read_layer_types(root, config);
}

}  // namespace attnmux
