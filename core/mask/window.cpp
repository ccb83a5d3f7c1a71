#include <algorithm>
#include <string>

#include "attnmux/error.h"
#include "attnmux/mask_window.h"
#include "trapezoid.h"

namespace attnmux {
namespace {

// Rows [q0, q1) between the edges, without those that keep no key.
void append_rows(Trapezoid rows, std::vector<AttnSlice>* slices) {
  if (rows.left.moving && !rows.right.moving) rows.q1 = std::min(rows.q1, rows.right.offset - rows.left.offset);
  if (rows.q0 >= rows.q1 || rows.keys(rows.q0).empty()) return;
  slices->push_back(to_slice(rows));
}

}  // namespace

AttnMaskSpec within_window(const AttnMaskSpec& mask, int64_t window) {
  if (window < 1) {
    throw Error(ErrorCode::kInvalidArgument,
                "a window of " + std::to_string(window) + " keys; it holds at least the query's own");
  }
  if (mask.total_q() != mask.total_k()) {
    throw Error(ErrorCode::kInvalidArgument, "a sliding window needs as many keys as queries, the mask is " +
                                                 std::to_string(mask.total_q()) + " x " +
                                                 std::to_string(mask.total_k()));
  }
  const Edge edge{.offset = 1 - window, .moving = true};
  std::vector<AttnSlice> slices;
  for (const AttnSlice& slice : mask.disjoint_slices()) {
    const Trapezoid whole = *to_trapezoid(slice);
    if (whole.left.moving) {
      const Edge left{.offset = std::max(whole.left.offset, edge.offset), .moving = true};
      append_rows({.q0 = whole.q0, .q1 = whole.q1, .left = left, .right = whole.right}, &slices);
      continue;
    }
    // A resting left edge holds until the window's edge overtakes it.
    const int64_t overtaken = std::clamp(whole.left.offset - edge.offset, whole.q0, whole.q1);
    append_rows({.q0 = whole.q0, .q1 = overtaken, .left = whole.left, .right = whole.right}, &slices);
    append_rows({.q0 = overtaken, .q1 = whole.q1, .left = edge, .right = whole.right}, &slices);
  }
  return AttnMaskSpec(std::move(slices), mask.total_q(), mask.total_k());
}

MaskFamilySet within_window(const MaskFamilySet& families) {
  MaskFamilySet left;
  for (const MaskFamily family : {MaskFamily::kFull, MaskFamily::kCausal, MaskFamily::kVarlenFull,
                                  MaskFamily::kVarlenCausal, MaskFamily::kSlidingWindow}) {
    if (families.has(family)) left.insert(MaskFamily::kSlidingWindow);
  }
  if (families.has(MaskFamily::kArbitrary)) left.insert(MaskFamily::kArbitrary);
  return left;
}

}  // namespace attnmux
