#include "tools/attnmux/values.h"

#include <charconv>
#include <sstream>

#include "attnmux/error.h"

namespace attnmux::tool {

std::vector<std::string> split(const std::string& text, char separator, const std::string& flag) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) {
    if (part.empty()) throw Error(ErrorCode::kUsage, "--" + flag + " \"" + text + "\" holds an empty entry");
    parts.push_back(part);
  }
  if (parts.empty()) throw Error(ErrorCode::kUsage, "--" + flag + " is empty");
  return parts;
}

int64_t whole_number(const std::string& text, const std::string& flag) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw Error(ErrorCode::kUsage, "--" + flag + ": \"" + text + "\" is not a whole number");
  }
  return value;
}

TileShape parse_tile_shape(const std::string& text, const std::string& flag) {
  const int64_t tile = whole_number(text, flag);
  if (tile < 16 || tile > 1024 || (tile & (tile - 1)) != 0) {
    throw Error(ErrorCode::kUsage, "--" + flag + " " + text + ": a power of two from 16 to 1024 is expected");
  }
  return {.q = static_cast<int32_t>(tile), .k = static_cast<int32_t>(tile)};
}

}  // namespace attnmux::tool
