// One document of a sliding window mask, as slices.
#pragma once

#include <vector>

#include "attnmux/mask_builders.h"

namespace attnmux {

// Appends the slices, disjoint and at most four, of the pairs of q x k whose key lies at most `left` before and `right`
// after the diagonal that ends in the bottom-right corner (-1: unbounded), or is one of the first sink_tokens keys and
// at most `right` after it.
void append_band(Range q, Range k, const SlidingWindow& window, std::vector<AttnSlice>* slices);

}  // namespace attnmux
