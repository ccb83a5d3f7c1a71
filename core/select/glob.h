// Patterns of module paths: segments between dots, `*` for one segment, `**` for any number of them.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace attnmux {

std::vector<std::string_view> path_segments(std::string_view path);

// What is wrong with a pattern, or nothing.
std::optional<std::string> pattern_problem(std::string_view pattern);

bool matches(const std::vector<std::string_view>& pattern, const std::vector<std::string_view>& path);

}  // namespace attnmux
