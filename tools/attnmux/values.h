// Values of flags that are more than a word. Each throws Error(kUsage) naming the flag and the value.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "attnmux/request.h"
#include "attnmux/tile_plan.h"

namespace attnmux::tool {

// Entries of a list such as "a;b"; none may be empty.
std::vector<std::string> split(const std::string& text, char separator, const std::string& flag);

int64_t whole_number(const std::string& text, const std::string& flag);

DType parse_dtype(const std::string& text, const std::string& flag);

// "32:8" or "8": heads of q, and of k and v. At least one each, the first a multiple of the second.
std::pair<int64_t, int64_t> parse_heads(const std::string& text, const std::string& flag);

// "128": square tiles, a power of two from 16 to 1024.
TileShape parse_tile_shape(const std::string& text, const std::string& flag);

}  // namespace attnmux::tool
