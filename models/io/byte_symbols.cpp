#include "models/io/byte_symbols.h"

#include <array>

#include "models/io/utf8.h"

namespace attnmux {
namespace {

constexpr unsigned kFirstExtra = 0x100;
constexpr unsigned kNumExtra = 68;

constexpr bool stands_for_itself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

// Code point of each byte's symbol.
constexpr std::array<uint16_t, 256> make_symbols() {
  std::array<uint16_t, 256> symbols{};
  unsigned next = kFirstExtra;
  for (unsigned byte = 0; byte < 256; ++byte) {
    symbols[byte] = static_cast<uint16_t>(stands_for_itself(byte) ? byte : next++);
  }
  return symbols;
}
constexpr std::array<uint16_t, 256> kSymbols = make_symbols();

// Byte of each code point, -1 for none.
constexpr std::array<int16_t, kFirstExtra + kNumExtra> make_bytes() {
  std::array<int16_t, kFirstExtra + kNumExtra> bytes{};
  for (auto& byte : bytes) byte = -1;
  for (unsigned byte = 0; byte < 256; ++byte) bytes[kSymbols[byte]] = static_cast<int16_t>(byte);
  return bytes;
}
constexpr auto kBytes = make_bytes();

}  // namespace

std::string byte_symbol(uint8_t byte) {
  std::string symbol;
  append_small_code_point(symbol, kSymbols[byte]);
  return symbol;
}

std::optional<std::string> bytes_of_symbols(std::string_view text) {
  std::string bytes;
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t size = utf8_character_size(text.substr(i));
    if (size == 0 || size > 2) return std::nullopt;
    const unsigned code_point =
        size == 1 ? lead : ((lead & 0x1Fu) << 6) | (static_cast<unsigned char>(text[i + 1]) & 0x3Fu);
    if (code_point >= kBytes.size() || kBytes[code_point] < 0) return std::nullopt;
    bytes += static_cast<char>(kBytes[code_point]);
    i += size;
  }
  return bytes;
}

}  // namespace attnmux
