#include "dispatch_solvers.h"

#include <algorithm>
#include <numeric>
#include <queue>
#include <utility>

namespace attnmux {

std::vector<int32_t> largest_first(const std::vector<int64_t>& areas) {
  std::vector<int32_t> order(areas.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](int32_t a, int32_t b) { return std::pair(areas[a], a) > std::pair(areas[b], b); });
  return order;
}

std::vector<int32_t> solve_min_heap(const std::vector<int64_t>& areas, int64_t ranks, int64_t room) {
  using Load = std::pair<int64_t, int32_t>;  // area, rank
  std::priority_queue<Load, std::vector<Load>, std::greater<>> loads;
  for (int32_t rank = 0; rank < ranks; ++rank) loads.push({0, rank});
  std::vector<int64_t> taken(ranks, 0);
  std::vector<int32_t> rank_of(areas.size());
  for (const int32_t chunk : largest_first(areas)) {
    const auto [load, rank] = loads.top();
    loads.pop();
    rank_of[chunk] = rank;
    if (++taken[rank] < room) loads.push({load + areas[chunk], rank});
  }
  return rank_of;
}

std::vector<int32_t> solve_sequential(int64_t chunks, int64_t ranks) {
  std::vector<int32_t> rank_of(chunks);
  for (int64_t rank = 0; rank < ranks; ++rank) {
    std::fill(rank_of.begin() + rank * chunks / ranks, rank_of.begin() + (rank + 1) * chunks / ranks,
              static_cast<int32_t>(rank));
  }
  return rank_of;
}

}  // namespace attnmux
