#include "models/io/token_decoder.h"

#include <array>

#include "models/io/byte_symbols.h"
#include "models/io/normalizer.h"

namespace attnmux {
namespace {

constexpr char kBuilt[] = "built are ByteLevel and a Sequence of Replace, ByteFallback, Fuse and Strip";
constexpr char kDigits[] = "0123456789ABCDEF";

}  // namespace

std::string byte_token(uint8_t byte) { return std::string("<0x") + kDigits[byte >> 4] + kDigits[byte & 15] + ">"; }

TokenDecoder TokenDecoder::from_json(const JsonNode& node) {
  TokenDecoder decoder;
  const std::string& type = node.at("type").text();
  if (type == "ByteLevel") return decoder;
  if (type != "Sequence") node.at("type").fail(kBuilt);
  decoder.byte_level_ = false;
  for (const JsonNode& member : node.at("decoders").elements()) decoder.add(member);
  return decoder;
}

void TokenDecoder::add(const JsonNode& node) {
  const std::string& type = node.at("type").text();
  if (!stripped_.empty()) node.fail("Strip must come last");
  if (type == "Replace") {
    if (byte_fallback_) node.fail("Replace must come before ByteFallback");
    const JsonNode pattern = node.at("pattern").at("String");
    if (pattern.text().empty()) pattern.fail("a text that is not empty is expected");
    replacements_.emplace_back(pattern.text(), node.at("content").text());
  } else if (type == "ByteFallback") {
    byte_fallback_ = true;
  } else if (type == "Strip") {
    if (node.at("stop").integer() != 0) node.at("stop").fail("0 is built");
    stripped_ = node.at("content").text();
    if (stripped_.empty()) node.at("content").fail("a character is expected");
    strip_at_most_ = node.at("start").integer();
  } else if (type != "Fuse") {
    node.at("type").fail(kBuilt);
  }
}

std::string TokenDecoder::bytes_of(const std::string& token) const {
  if (byte_level_)
    return bytes_of_symbols(token).value_or(token);  // a token that is spelled otherwise stands for itself
  std::string text = token;
  for (const auto& [pattern, content] : replacements_) text = replace_all(text, pattern, content);
  if (!byte_fallback_ || text.size() != 6) return text;
  for (unsigned byte = 0; byte < 256; ++byte) {
    if (text == byte_token(static_cast<uint8_t>(byte))) return std::string(1, static_cast<char>(byte));
  }
  return text;
}

void TokenDecoder::strip(std::string& text) const {
  size_t size = 0;
  for (int64_t i = 0; i < strip_at_most_ && text.compare(size, stripped_.size(), stripped_) == 0; ++i) {
    size += stripped_.size();
  }
  text.erase(0, size);
}

}  // namespace attnmux
