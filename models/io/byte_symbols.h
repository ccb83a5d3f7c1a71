// GPT-2's alphabet: each byte as a printable character, in which byte-level BPE spells its tokens.
//
//   byte_symbol(' ')          // "Ġ"
//   bytes_of_symbols("Ġa")    // " a"
//
// Printable ASCII and Latin-1 bytes stand for themselves, the other 68 for U+0100 and up, in order (bytes_to_unicode in
// the GPT-2 sources). Any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace attnmux {

std::string byte_symbol(uint8_t byte);

// Nothing when a character of the text stands for no byte.
std::optional<std::string> bytes_of_symbols(std::string_view text);

}  // namespace attnmux
