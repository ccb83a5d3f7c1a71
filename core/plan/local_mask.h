// A part of a mask, some queries against some keys, in numbers of its own.
#pragma once

#include <cstdint>
#include <vector>

#include "../mask/trapezoid.h"
#include "attnmux/mask.h"

namespace attnmux {

// Rows of disjoint trapezoids that lie in a set of queries, numbered there: q0 and q1 are local, edges hold global
// keys. queries: ascending, disjoint. pieces: sorted by q0.
std::vector<Trapezoid> local_rows(const std::vector<Trapezoid>& pieces, const std::vector<Range>& queries);

// The mask of those rows against the keys of `keys` (ascending, disjoint), numbered one range behind another.
AttnMaskSpec local_mask(const std::vector<Trapezoid>& rows, int64_t num_queries, const std::vector<Range>& keys);

}  // namespace attnmux
