// Cutting bytes into valid UTF-8 and what is broken.
//
//   while (!bytes.empty()) { size_t valid = valid_utf8_prefix(bytes); ... }
//
// Valid is what Unicode 3.9 table 3-7 calls well-formed: shortest form, no surrogates, up to U+10FFFF. Any thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace attnmux {

// Bytes of the well-formed character that `bytes` starts with; 0 when it starts with none.
size_t utf8_character_size(std::string_view bytes);

// Bytes of the longest well-formed text that `bytes` starts with.
size_t valid_utf8_prefix(std::string_view bytes);

// Where the last character of a well-formed, non-empty text begins.
size_t last_utf8_character(std::string_view text);

// Appends a code point below U+0800 (one or two bytes).
void append_small_code_point(std::string& text, unsigned code_point);

}  // namespace attnmux
