#include "trapezoid.h"

#include <algorithm>

namespace attnmux {

std::optional<Trapezoid> to_trapezoid(const AttnSlice& slice) {
  const bool right_moves = static_cast<uint8_t>(slice.type) & 1u;
  const bool left_moves = static_cast<uint8_t>(slice.type) & 2u;
  const int64_t rows = slice.q.size();
  const int64_t keys = slice.k.size();
  if (rows <= 0 || keys <= 0) return std::nullopt;
  Trapezoid result{.q0 = slice.q.begin,
                   .q1 = slice.q.end,
                   .left = Edge::through(slice.q.begin, slice.k.begin, left_moves),
                   .right = Edge::through(slice.q.end - 1, slice.k.end, right_moves)};
  if (left_moves && right_moves) {
    if (rows > keys) return std::nullopt;  // every row is keys - rows + 1 wide
  } else if (right_moves) {
    result.q0 = std::max(result.q0, slice.q.end - keys);  // the rows before it end left of the slice
  } else if (left_moves) {
    result.q1 = std::min(result.q1, slice.q.begin + keys);  // the rows behind it begin right of the slice
  }
  return result;
}

AttnSlice to_slice(const Trapezoid& trapezoid) {
  const unsigned type = (trapezoid.right.moving ? 1u : 0u) | (trapezoid.left.moving ? 2u : 0u);
  return {.q = {trapezoid.q0, trapezoid.q1}, .k = trapezoid.key_hull(), .type = static_cast<MaskType>(type)};
}

int64_t area(const Trapezoid& trapezoid) {
  // Widths change evenly from the first row to the last; the product is even where they change at all.
  const int64_t widths = trapezoid.keys(trapezoid.q0).size() + trapezoid.keys(trapezoid.q1 - 1).size();
  return trapezoid.height() * widths / 2;
}

}  // namespace attnmux
