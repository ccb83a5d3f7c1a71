// A part of a mask, some queries against some keys, in numbers of its own.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "../mask/row_index.h"
#include "../mask/trapezoid.h"
#include "attnmux/mask.h"

namespace attnmux {

// A mask's disjoint trapezoids, ready to be asked for sets of queries.
class MaskRows {
 public:
  explicit MaskRows(const AttnMaskSpec& mask);

  // The rows that lie in `queries` (ascending, disjoint), numbered there: q0 and q1 are local, edges hold global keys.
  // O(log pieces) for each that is found. A piece with a moving edge falls into as many as it meets ranges; one whose
  // edges both rest stays one, whatever ranges it spans, and is looked at once.
  std::vector<Trapezoid> of(const std::vector<Range>& queries) const;

 private:
  struct Pieces {
    explicit Pieces(std::vector<Trapezoid> pieces) : sorted(std::move(pieces)), index(sorted) {}
    std::vector<Trapezoid> sorted;  // by q0
    RowIndex index;
  };
  Pieces resting_;  // both edges
  Pieces moving_;   // one of them at least
};

// Those rows against the keys of `keys` (ascending, disjoint), numbered one range behind another: disjoint slices.
std::vector<AttnSlice> local_slices(const std::vector<Trapezoid>& rows, const std::vector<Range>& keys);

// The rows to which such slices give a key.
std::vector<Range> attended_rows(const std::vector<AttnSlice>& slices);

// The slices in numbers of those rows alone. REQUIRES: rows == attended_rows(slices).
std::vector<AttnSlice> without_other_rows(const std::vector<AttnSlice>& slices, const std::vector<Range>& rows);

}  // namespace attnmux
