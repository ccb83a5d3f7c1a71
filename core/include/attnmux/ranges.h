// Sets of tokens as lists of ranges: what plans are computed with.
//
//   std::vector<Range> needed = unite({{0, 10}, {8, 20}, {30, 40}});   // {{0, 20}, {30, 40}}
//   std::vector<Range> remote = subtract(needed, own);
//   localise({{5, 8}}, own);                                         // where those tokens lie in `own`, one behind another
//
// "Sorted" means ascending, disjoint, not adjacent and without empty ranges. Pure functions, any thread, O(n) in the
// ranges given (unite: O(n log n)).
#pragma once

#include <cstdint>
#include <vector>

#include "attnmux/export.h"
#include "attnmux/mask.h"

namespace attnmux {

// Any ranges, in any order -> sorted.
ATTNMUX_API std::vector<Range> unite(std::vector<Range> ranges);

// REQUIRES of these: both arguments sorted. The result is sorted.
ATTNMUX_API std::vector<Range> intersect(const std::vector<Range>& a, const std::vector<Range>& b);
ATTNMUX_API std::vector<Range> subtract(const std::vector<Range>& a, const std::vector<Range>& b);

// The tokens of `outer`'s ranges are numbered from 0 in the order given; returns the numbers of `inner`'s tokens, one
// range for each range of `inner`, in its order. REQUIRES: `outer` is ascending and disjoint, neighbours may touch.
// Throws Error(kInvalidArgument) naming a token of `inner` that `outer` lacks.
ATTNMUX_API std::vector<Range> localise(const std::vector<Range>& inner, const std::vector<Range>& outer);

ATTNMUX_API int64_t count_tokens(const std::vector<Range>& ranges);

}  // namespace attnmux
