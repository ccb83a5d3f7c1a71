// A Llama of a few thousand random weights with a tokenizer of single bytes, as a Hugging Face folder.
//
//   make_tiny_model(dir.file("model"));
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "models/families/families.h"
#include "models/io/atomic_file.h"
#include "models/io/safetensors.h"

namespace attnmux::testing {

inline constexpr int64_t kTinyEos = 256;

// GPT-2's spelling of a byte: printable ones as themselves, the others as code points from U+0100.
inline std::string byte_symbol(int byte, int& next) {
  const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  const int point = printable ? byte : 256 + next++;
  if (point < 0x80) return std::string(1, static_cast<char>(point));
  return {static_cast<char>(0xc0 | (point >> 6)), static_cast<char>(0x80 | (point & 0x3f))};
}

inline std::string byte_tokenizer_json() {
  nlohmann::json vocab;
  int next = 0;
  for (int byte = 0; byte < 256; ++byte) vocab[byte_symbol(byte, next)] = byte;
  const nlohmann::json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  const nlohmann::json eos = {{"id", kTinyEos},  {"content", "<eos>"},  {"single_word", false}, {"lstrip", false},
                              {"rstrip", false}, {"normalized", false}, {"special", true}};
  const nlohmann::json model = {{"type", "BPE"},
                                {"dropout", nullptr},
                                {"unk_token", nullptr},
                                {"continuing_subword_prefix", nullptr},
                                {"end_of_word_suffix", nullptr},
                                {"fuse_unk", false},
                                {"byte_fallback", false},
                                {"ignore_merges", false},
                                {"vocab", vocab},
                                {"merges", nlohmann::json::array()}};
  const nlohmann::json tokenizer = {{"version", "1.0"},          {"truncation", nullptr}, {"padding", nullptr},
                                    {"added_tokens", {eos}},     {"normalizer", nullptr}, {"pre_tokenizer", byte_level},
                                    {"post_processor", nullptr}, {"decoder", byte_level}, {"model", model}};
  return tokenizer.dump();
}

struct TinyModel {
  int64_t hidden_size = 16;
  int64_t layers = 2;
  uint64_t seed = 1;
};

inline void make_tiny_model(const std::string& dir, const TinyModel& tiny = {}) {
  std::filesystem::create_directories(dir);
  const nlohmann::json config = {{"architectures", {"LlamaForCausalLM"}},
                                 {"model_type", "llama"},
                                 {"vocab_size", kTinyEos + 1},
                                 {"hidden_size", tiny.hidden_size},
                                 {"intermediate_size", 2 * tiny.hidden_size},
                                 {"num_hidden_layers", tiny.layers},
                                 {"num_attention_heads", 2},
                                 {"num_key_value_heads", 1},
                                 {"hidden_act", "silu"},
                                 {"rms_norm_eps", 1e-5},
                                 {"max_position_embeddings", 512},
                                 {"rope_theta", 10000.0},
                                 {"tie_word_embeddings", true},
                                 {"eos_token_id", kTinyEos},
                                 {"bos_token_id", kTinyEos},
                                 {"torch_dtype", "float32"}};
  write_file_atomically(dir + "/config.json", config.dump(2));
  write_file_atomically(dir + "/tokenizer.json", byte_tokenizer_json());
  write_file_atomically(dir + "/tokenizer_config.json", R"({"eos_token": "<eos>"})");
  at::Generator generator = at::detail::createCPUGenerator(tiny.seed);
  std::vector<NamedTensor> weights;
  for (const ParameterSpec& spec : model_parameters(read_model_config(dir))) {
    const double mean = spec.shape.size() == 1 ? 1.0 : 0.0;
    weights.push_back({spec.name, at::randn(spec.shape, generator, at::TensorOptions(at::kFloat)) * 0.1 + mean});
  }
  write_safetensors(dir + "/model.safetensors", weights, {{"format", "pt"}});
}

}  // namespace attnmux::testing
