#include "tools/attnmux/values.h"

#include <charconv>
#include <sstream>

#include "attnmux/error.h"
#include "attnmux/spelling.h"

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

DType parse_dtype(const std::string& text, const std::string& flag) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64}) {
    if (text == to_string(dtype)) return dtype;
  }
  throw Error(ErrorCode::kUsage, "--" + flag + ": " + unknown_word("dtype", text, {"fp32", "bf16", "fp16", "fp64"}));
}

std::pair<int64_t, int64_t> parse_heads(const std::string& text, const std::string& flag) {
  const std::vector<std::string> counts = split(text, ':', flag);
  if (counts.size() > 2) throw Error(ErrorCode::kUsage, "--" + flag + " \"" + text + "\": write Q or Q:KV, e.g. 32:8");
  const int64_t heads_q = whole_number(counts.front(), flag), heads_kv = whole_number(counts.back(), flag);
  if (heads_q < 1 || heads_kv < 1 || heads_q % heads_kv != 0) {
    throw Error(ErrorCode::kUsage, "--" + flag + " " + text + ": the heads of q are a multiple of those of k and v");
  }
  return {heads_q, heads_kv};
}

TileShape parse_tile_shape(const std::string& text, const std::string& flag) {
  const int64_t tile = whole_number(text, flag);
  if (tile < 16 || tile > 1024 || (tile & (tile - 1)) != 0) {
    throw Error(ErrorCode::kUsage, "--" + flag + " " + text + ": a power of two from 16 to 1024 is expected");
  }
  return {.q = static_cast<int32_t>(tile), .k = static_cast<int32_t>(tile)};
}

}  // namespace attnmux::tool
