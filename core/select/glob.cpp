#include "glob.h"

#include "attnmux/selection_policy.h"

namespace attnmux {

std::vector<std::string_view> path_segments(std::string_view path) {
  std::vector<std::string_view> segments;
  for (size_t begin = 0;;) {
    const size_t dot = path.find('.', begin);
    segments.push_back(path.substr(begin, dot == std::string_view::npos ? dot : dot - begin));
    if (dot == std::string_view::npos) return segments;
    begin = dot + 1;
  }
}

std::optional<std::string> pattern_problem(std::string_view pattern) {
  if (pattern.empty()) return "the pattern is empty; write `**` to match every module";
  for (std::string_view segment : path_segments(pattern)) {
    if (segment.empty()) return "an empty path segment (a dot at the start or end, or two dots in a row)";
    if (segment.find('*') != std::string_view::npos && segment != "*" && segment != "**") {
      return "segment \"" + std::string(segment) + "\" mixes `*` with text; `*` stands for one whole path segment, " +
             "`**` for any number of them";
    }
  }
  return std::nullopt;
}

bool matches(const std::vector<std::string_view>& pattern, const std::vector<std::string_view>& path) {
  // reached[j]: the pattern so far matches the first j segments. Linear in both, whatever stars the pattern holds.
  std::vector<bool> reached(path.size() + 1, false);
  reached[0] = true;
  for (std::string_view segment : pattern) {
    std::vector<bool> next(path.size() + 1, false);
    for (size_t j = 0; j <= path.size(); ++j) {
      if (segment == "**") {
        next[j] = reached[j] || (j > 0 && next[j - 1]);
      } else if (j > 0) {
        next[j] = reached[j - 1] && (segment == "*" || segment == path[j - 1]);
      }
    }
    reached = std::move(next);
  }
  return reached[path.size()];
}

bool matches(const std::string& match, const std::string& path) {
  return matches(path_segments(match), path_segments(path));
}

}  // namespace attnmux
