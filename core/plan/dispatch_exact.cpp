#include <algorithm>
#include <bit>
#include <limits>

#include "dispatch_solvers.h"

namespace attnmux {

// Over sets of chunks, one rank more at a time: the last rank takes the set's first chunk and any of the others.
// 3^chunks steps for each rank, whatever the areas: no input makes it hang.
std::vector<int32_t> solve_exact(const std::vector<int64_t>& areas, int64_t ranks, int64_t room) {
  const size_t chunks = areas.size();
  const uint32_t sets = 1u << chunks;
  std::vector<int64_t> area(sets, 0);
  for (uint32_t set = 1; set < sets; ++set) area[set] = area[set & (set - 1)] + areas[std::countr_zero(set)];

  constexpr int64_t kImpossible = std::numeric_limits<int64_t>::max();
  std::vector<int64_t> largest(sets, kImpossible);  // with the ranks so far: the smallest largest area of a rank
  largest[0] = 0;
  std::vector<std::vector<uint32_t>> taken;  // by rank and set: what the rank takes of it
  for (int64_t rank = 0; rank < std::min<int64_t>(ranks, std::ssize(areas)); ++rank) {
    std::vector<int64_t> with_rank(sets, kImpossible);
    with_rank[0] = 0;
    std::vector<uint32_t>& takes = taken.emplace_back(sets, 0u);
    for (uint32_t set = 1; set < sets; ++set) {
      const uint32_t first = set & -set;
      uint32_t others = set ^ first;
      for (bool more = true; more; others = (others - 1) & (set ^ first)) {
        more = others != 0;
        const uint32_t group = first | others;
        if (area[group] >= with_rank[set] || std::popcount(group) > room) continue;
        const int64_t result = std::max(area[group], largest[set ^ group]);
        if (result >= with_rank[set]) continue;
        with_rank[set] = result;
        takes[set] = group;
      }
    }
    largest = std::move(with_rank);
  }

  std::vector<int32_t> rank_of(chunks);
  uint32_t set = sets - 1;
  for (int64_t rank = std::ssize(taken); rank-- > 0;) {
    for (size_t chunk = 0; chunk < chunks; ++chunk) {
      if (taken[rank][set] >> chunk & 1u) rank_of[chunk] = static_cast<int32_t>(rank);
    }
    set ^= taken[rank][set];
  }
  return rank_of;
}

}  // namespace attnmux
