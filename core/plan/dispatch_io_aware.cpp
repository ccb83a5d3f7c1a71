#include <algorithm>

#include "attnmux/ranges.h"
#include "dispatch_solvers.h"

namespace attnmux {
namespace {

constexpr double kSlack = 1.01;

// Tokens of `wanted` that lie in `held`.
int64_t overlap(const std::vector<Range>& wanted, const std::vector<Range>& held) {
  int64_t tokens = 0;
  for (const Range& range : wanted) {
    auto at = std::partition_point(held.begin(), held.end(), [&](const Range& h) { return h.end <= range.begin; });
    for (; at != held.end() && at->begin < range.end; ++at) {
      tokens += std::min(range.end, at->end) - std::max(range.begin, at->begin);
    }
  }
  return tokens;
}

// Adds `ranges` to sorted `held`.
void add(const std::vector<Range>& ranges, std::vector<Range>* held) {
  for (Range range : ranges) {
    const auto first =
        std::partition_point(held->begin(), held->end(), [&](const Range& h) { return h.end < range.begin; });
    auto last = first;
    for (; last != held->end() && last->begin <= range.end; ++last) {
      range = {std::min(range.begin, last->begin), std::max(range.end, last->end)};
    }
    if (first == last) {
      held->insert(first, range);
    } else {
      *first = range;
      held->erase(first + 1, last);
    }
  }
}

std::vector<int32_t> follow_keys(const std::vector<int64_t>& areas, int64_t room, const ChunkKeys& keys) {
  std::vector<std::vector<Range>> held = keys.held;
  const int64_t ranks = std::ssize(held);
  const std::vector<int32_t> order = largest_first(areas);
  std::vector<int64_t> dealt(order.size() + 1, 0);  // area of the largest i chunks
  for (size_t i = 0; i < order.size(); ++i) dealt[i + 1] = dealt[i] + areas[order[i]];
  std::vector<int64_t> loads(ranks, 0), taken(ranks, 0);
  std::vector<int32_t> rank_of(areas.size());
  for (const int32_t chunk : order) {
    int64_t chosen = -1, most = -1, least_loaded = -1;
    for (int64_t rank = 0; rank < ranks; ++rank) {
      if (taken[rank] == room) continue;
      if (least_loaded < 0 || loads[rank] < loads[least_loaded]) least_loaded = rank;
      const int64_t chunks_of_share = std::min<int64_t>((taken[rank] + 1) * ranks, std::ssize(order));
      const double share = static_cast<double>(dealt[chunks_of_share]) / static_cast<double>(ranks);
      if (static_cast<double>(loads[rank] + areas[chunk]) > kSlack * share) continue;
      const int64_t tokens = overlap(keys.touched[chunk], held[rank]);
      if (tokens > most || (tokens == most && loads[rank] < loads[chosen])) {
        most = tokens;
        chosen = rank;
      }
    }
    if (chosen < 0) chosen = least_loaded;
    rank_of[chunk] = static_cast<int32_t>(chosen);
    loads[chosen] += areas[chunk];
    ++taken[chosen];
    add(keys.touched[chunk], &held[chosen]);
  }
  return rank_of;
}

// Tokens that the ranks have or receive, all together.
int64_t tokens_held(const std::vector<int32_t>& rank_of, const ChunkKeys& keys) {
  std::vector<std::vector<Range>> held = keys.held;
  for (size_t chunk = 0; chunk < rank_of.size(); ++chunk) add(keys.touched[chunk], &held[rank_of[chunk]]);
  int64_t tokens = 0;
  for (const std::vector<Range>& ranges : held) tokens += count_tokens(ranges);
  return tokens;
}

}  // namespace

// Following the keys is greedy: a first chunk binds a rank to keys that later chunks might have shared better. Where
// balance alone happens to move less (equal branches of a tree, dealt out in turn), that is taken.
std::vector<int32_t> solve_io_aware(const std::vector<int64_t>& areas, int64_t room, const ChunkKeys& keys) {
  std::vector<int32_t> followed = follow_keys(areas, room, keys);
  std::vector<int32_t> balanced = solve_min_heap(areas, std::ssize(keys.held), room);
  return tokens_held(followed, keys) <= tokens_held(balanced, keys) ? followed : balanced;
}

}  // namespace attnmux
