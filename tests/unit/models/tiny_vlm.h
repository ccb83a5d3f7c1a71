// A Qwen2.5-VL of a few thousand random weights with a tokenizer of single bytes, as a Hugging Face folder.
//
//   make_tiny_vlm(dir.file("model"));
#pragma once

#include <cstdint>
#include <string>

namespace attnmux::testing {

inline constexpr int64_t kChatVocabulary = 256 + 7;

// tokenizer.json: bytes, and the special tokens that a conversation needs.
std::string chat_tokenizer_json();

// Of the model that DIR/config.json describes.
void write_random_weights(const std::string& dir);

void make_tiny_vlm(const std::string& dir);

}  // namespace attnmux::testing
