// Which slices cover a pair twice.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "attnmux/mask.h"

namespace attnmux {

// Index pairs (a < b) of slices that share an attended pair, ascending, at most `limit` of them: none where the slices
// are disjoint; where many overlap, each overlapping slice in at least one pair rather than every pair. O(n log n).
std::vector<std::pair<size_t, size_t>> overlapping_pairs(const std::vector<AttnSlice>& slices, size_t limit);

}  // namespace attnmux
