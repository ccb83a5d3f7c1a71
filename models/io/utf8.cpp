#include "models/io/utf8.h"

namespace attnmux {
namespace {

unsigned char at(std::string_view bytes, size_t i) { return static_cast<unsigned char>(bytes[i]); }
bool continues(unsigned char byte) { return (byte & 0xC0) == 0x80; }

}  // namespace

size_t utf8_character_size(std::string_view bytes) {
  if (bytes.empty()) return 0;
  const unsigned char lead = at(bytes, 0);
  if (lead < 0x80) return 1;
  const size_t size = lead >= 0xC2 && lead <= 0xDF   ? 2
                      : (lead & 0xF0) == 0xE0        ? 3
                      : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                     : 0;
  if (size == 0 || bytes.size() < size) return 0;
  for (size_t i = 1; i < size; ++i) {
    if (!continues(at(bytes, i))) return 0;
  }
  const unsigned char second = at(bytes, 1);
  if (lead == 0xE0 && second < 0xA0) return 0;  // overlong
  if (lead == 0xED && second > 0x9F) return 0;  // surrogate
  if (lead == 0xF0 && second < 0x90) return 0;  // overlong
  if (lead == 0xF4 && second > 0x8F) return 0;  // beyond U+10FFFF
  return size;
}

size_t valid_utf8_prefix(std::string_view bytes) {
  size_t valid = 0;
  while (valid < bytes.size()) {
    const size_t size = utf8_character_size(bytes.substr(valid));
    if (size == 0) break;
    valid += size;
  }
  return valid;
}

size_t last_utf8_character(std::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 && continues(at(text, begin))) --begin;
  return begin;
}

void append_small_code_point(std::string& text, unsigned code_point) {
  if (code_point < 0x80) {
    text += static_cast<char>(code_point);
  } else {
    text += static_cast<char>(0xC0 | (code_point >> 6));
    text += static_cast<char>(0x80 | (code_point & 0x3F));
  }
}

}  // namespace attnmux
