// A part of a mask, some queries against some keys, in numbers of its own.
#pragma once

#include <cstdint>
#include <vector>

#include "../mask/row_index.h"
#include "../mask/trapezoid.h"
#include "attnmux/mask.h"

namespace attnmux {

// Rows of disjoint trapezoids that lie in a set of queries, numbered there: q0 and q1 are local, edges hold global
// keys. queries: ascending, disjoint. pieces: sorted by q0, `index` made from them. O(log pieces) for each that is
// found.
std::vector<Trapezoid> local_rows(const std::vector<Trapezoid>& pieces, const RowIndex& index,
                                  const std::vector<Range>& queries);

// Those rows against the keys of `keys` (ascending, disjoint), numbered one range behind another: disjoint slices.
std::vector<AttnSlice> local_slices(const std::vector<Trapezoid>& rows, const std::vector<Range>& keys);

}  // namespace attnmux
