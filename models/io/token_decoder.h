// Tokens back to bytes: `decoder` of a tokenizer.json.
//
//   TokenDecoder decoder = TokenDecoder::from_json(root.at("decoder"));
//   decoder.bytes_of("▁a");            // " a"
//   decoder.bytes_of("<0xE2>");        // "\xE2"
//
// ByteLevel, whose tokens are spelled in GPT-2's alphabet, or the Sequence that SentencePiece's tokenizers have:
// Replace, ByteFallback, Fuse, Strip. Bytes that make no character come back as they are, where `tokenizers` writes
// U+FFFD. Immutable, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "models/io/json_node.h"

namespace attnmux {

class TokenDecoder {
 public:
  // ByteLevel.
  TokenDecoder() = default;
  // Fails through the node, naming the kind, for what is not built.
  static TokenDecoder from_json(const JsonNode& node);

  bool byte_level() const { return byte_level_; }
  std::string bytes_of(const std::string& token) const;
  // What Strip takes away at the start of a whole decoded text.
  void strip(std::string& text) const;

 private:
  void add(const JsonNode& node);

  bool byte_level_ = true;
  bool byte_fallback_ = false;
  std::vector<std::pair<std::string, std::string>> replacements_;
  std::string stripped_;  // a character, empty for none
  int64_t strip_at_most_ = 0;
};

// Byte fallback's name of a byte: "<0x0A>".
std::string byte_token(uint8_t byte);

}  // namespace attnmux
