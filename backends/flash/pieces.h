// A packed mask as the rectangles and square triangles that ATen's kernel knows.
#pragma once

#include <vector>

#include "attnmux/mask.h"

namespace attnmux {

struct Piece {
  Range q;
  Range k;
  bool is_causal = false;  // row i attends the piece's keys [0, i]; q and k have the same length
  bool same_rows = false;  // as the piece before: outputs are merged by lse
  friend bool operator==(const Piece&, const Piece&) = default;
};

// No piece is empty, no two share a key. A causal document with more keys than queries is a rectangle of the keys that
// all its queries see and a triangle; with more queries than keys its first queries see nothing and are left out.
// Throws Error(kOutOfEnvelope) for a mask that is no packing of full or causal documents.
std::vector<Piece> pieces_of(const AttnMaskSpec& mask);

}  // namespace attnmux
