// What a sliding window leaves of a mask: layers that see the last W keys, beside layers that see all of them.
//
//   AttnMaskSpec local = within_window(batch_mask, 512);              // 511 keys before the query, and itself
//   MaskFamilySet asked = within_window(MaskFamilySet{MaskFamily::kVarlenCausal});
//
// Pure functions, any thread.
#pragma once

#include <cstdint>

#include "attnmux/export.h"
#include "attnmux/mask.h"
#include "attnmux/mask_family.h"

namespace attnmux {

// The pairs (q, k) of `mask` with k > q - window, as in transformers' sliding_window_overlay; keys after q stay. Throws
// Error(kInvalidArgument) for a window below 1 and for a mask of unequal lengths. O(slices).
ATTNMUX_API AttnMaskSpec within_window(const AttnMaskSpec& mask, int64_t window);

// Families that hold every within_window() of a mask of these families. A mask of kArbitrary may lose all keys of a
// row.
ATTNMUX_API MaskFamilySet within_window(const MaskFamilySet& families);

}  // namespace attnmux
