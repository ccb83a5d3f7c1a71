#include "tiny_vlm.h"

#include <ATen/ATen.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "tests/common/tiny_model.h"

namespace attnmux::testing {

std::string chat_tokenizer_json() {
  nlohmann::json tokenizer = nlohmann::json::parse(byte_tokenizer_json());
  int64_t id = kTinyEos;
  for (const char* content :
       {"<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"}) {
    nlohmann::json token = tokenizer["added_tokens"][0];
    token["content"] = content;
    token["id"] = ++id;
    tokenizer["added_tokens"].push_back(token);
  }
  return tokenizer.dump();
}

void write_random_weights(const std::string& dir) {
  at::Generator generator = at::detail::createCPUGenerator(1);
  std::vector<NamedTensor> weights;
  for (const ParameterSpec& spec : model_parameters(read_model_config(dir))) {
    const double mean = spec.shape.size() == 1 && spec.name.ends_with("weight") ? 1.0 : 0.0;
    weights.push_back({spec.name, at::randn(spec.shape, generator, at::TensorOptions(at::kFloat)) * 0.1 + mean});
  }
  write_safetensors(dir + "/model.safetensors", weights, {{"format", "pt"}});
}

void make_tiny_vlm(const std::string& dir) {
  std::filesystem::create_directories(dir);
  const nlohmann::json text = {
      {"hidden_size", 16},
      {"intermediate_size", 32},
      {"num_hidden_layers", 2},
      {"num_attention_heads", 2},
      {"num_key_value_heads", 1},
      {"hidden_act", "silu"},
      {"vocab_size", kChatVocabulary},
      {"max_position_embeddings", 512},
      {"rms_norm_eps", 1e-5},
      {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 10000.0}, {"mrope_section", {2, 1, 1}}}}};
  const nlohmann::json vision = {{"depth", 2},        {"hidden_size", 16},     {"intermediate_size", 24},
                                 {"num_heads", 2},    {"patch_size", 4},       {"spatial_merge_size", 2},
                                 {"window_size", 16}, {"hidden_act", "silu"},  {"temporal_patch_size", 2},
                                 {"in_channels", 3},  {"out_hidden_size", 16}, {"fullatt_block_indexes", {1}}};
  const nlohmann::json config = {{"architectures", {"Qwen2_5_VLForConditionalGeneration"}},
                                 {"model_type", "qwen2_5_vl"},
                                 {"text_config", text},
                                 {"vision_config", vision},
                                 {"image_token_id", kTinyEos + 5},
                                 {"video_token_id", kTinyEos + 6},
                                 {"tie_word_embeddings", true},
                                 {"dtype", "float32"}};
  write_file_atomically(dir + "/config.json", config.dump(2));
  write_file_atomically(dir + "/tokenizer.json", chat_tokenizer_json());
  write_file_atomically(dir + "/tokenizer_config.json", R"({"eos_token": "<eos>"})");
  write_file_atomically(dir + "/chat_template.jinja",
                        read_whole_file(ATTNMUX_SOURCE_DIR "/tests/golden/chat/qwen2_5_vl.jinja"));
  write_file_atomically(dir + "/preprocessor_config.json",
                        R"({"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 4, "merge_size": 2,
                            "min_pixels": 64, "max_pixels": 1600})");
  write_random_weights(dir);
}

}  // namespace attnmux::testing
