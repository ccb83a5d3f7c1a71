#include "attnmux/ranges.h"

#include <algorithm>
#include <string>

#include "attnmux/error.h"

namespace attnmux {
namespace {

// The first of sorted `ranges` that ends behind `token`.
std::vector<Range>::const_iterator first_behind(const std::vector<Range>& ranges, int64_t token) {
  return std::partition_point(ranges.begin(), ranges.end(), [&](const Range& range) { return range.end <= token; });
}

}  // namespace

std::vector<Range> unite(std::vector<Range> ranges) {
  std::erase_if(ranges, [](const Range& range) { return range.empty(); });
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
  size_t last = 0;
  for (const Range& range : ranges) {
    if (range.begin <= ranges[last].end) {
      ranges[last].end = std::max(ranges[last].end, range.end);
    } else {
      ranges[++last] = range;
    }
  }
  if (!ranges.empty()) ranges.resize(last + 1);
  return ranges;
}

std::vector<Range> intersect(const std::vector<Range>& a, const std::vector<Range>& b) {
  std::vector<Range> result;
  for (auto x = a.begin(), y = b.begin(); x != a.end() && y != b.end(); x->end < y->end ? ++x : ++y) {
    const Range both{std::max(x->begin, y->begin), std::min(x->end, y->end)};
    if (!both.empty()) result.push_back(both);
  }
  return result;
}

std::vector<Range> subtract(const std::vector<Range>& a, const std::vector<Range>& b) {
  std::vector<Range> result;
  auto hole = b.begin();
  for (Range rest : a) {
    while (hole != b.end() && hole->end <= rest.begin) ++hole;
    for (auto next = hole; next != b.end() && next->begin < rest.end; ++next) {
      if (next->begin > rest.begin) result.push_back({rest.begin, next->begin});
      rest.begin = next->end;
      hole = next;  // it may reach into the next range of `a`
    }
    if (!rest.empty()) result.push_back(rest);
  }
  return result;
}

std::vector<Range> localise(const std::vector<Range>& inner, const std::vector<Range>& outer) {
  std::vector<int64_t> before(outer.size());  // tokens of `outer` before each of its ranges
  for (size_t i = 1; i < outer.size(); ++i) before[i] = before[i - 1] + outer[i - 1].size();
  std::vector<Range> result;
  result.reserve(inner.size());
  for (const Range& range : inner) {
    const auto first = first_behind(outer, range.begin);
    int64_t covered = range.begin;
    for (auto at = first; at != outer.end() && covered < range.end && at->begin <= covered; ++at) covered = at->end;
    if (covered < range.end) {
      throw Error(ErrorCode::kInvalidArgument, "token " + std::to_string(covered) + " of [" +
                                                   std::to_string(range.begin) + ", " + std::to_string(range.end) +
                                                   ") lies in none of the ranges that it is to be numbered by");
    }
    const int64_t begin = range.empty() ? 0 : before[first - outer.begin()] + range.begin - first->begin;
    result.push_back({begin, begin + range.size()});
  }
  return result;
}

int64_t count_tokens(const std::vector<Range>& ranges) {
  int64_t tokens = 0;
  for (const Range& range : ranges) tokens += range.size();
  return tokens;
}

}  // namespace attnmux
