// The second half of the canonical form: pieces joined downwards.
#pragma once

#include <vector>

#include "trapezoid.h"

namespace attnmux {

// Joins disjoint pieces over rows by the rule given at disjoint_trapezoids. REQUIRES: on each row, the pieces are the
// row's maximal key ranges.
std::vector<Trapezoid> coalesce(std::vector<Trapezoid> pieces);

}  // namespace attnmux
