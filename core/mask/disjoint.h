// The canonical form of a union of slices.
#pragma once

#include <cstdint>
#include <vector>

#include "attnmux/mask.h"
#include "trapezoid.h"

namespace attnmux {

// Pieces that a union may fall into; beyond it disjoint_trapezoids throws Error(kInvalidArgument).
inline constexpr size_t kMaxPieces = size_t{1} << 22;

// The union of `slices` as disjoint trapezoids that depend on the attended pairs alone: on every row the pieces are the
// row's maximal key ranges, and going down, a piece takes in the next row as long as one key range continues it with
// the piece's own pair of slopes. A piece of one row has resting edges. Sorted by (first row, first key).
std::vector<Trapezoid> disjoint_trapezoids(const std::vector<AttnSlice>& slices);

}  // namespace attnmux
