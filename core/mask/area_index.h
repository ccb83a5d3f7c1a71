// Attended pairs of any range of rows, in logarithmic time.
#pragma once

#include <cstdint>
#include <vector>

#include "attnmux/mask.h"
#include "trapezoid.h"

namespace attnmux {

// The number of attended pairs above a row is piecewise quadratic in the row: one piece between two rows at which
// trapezoids begin or end.
class AreaIndex {
 public:
  // REQUIRES: disjoint trapezoids with rows and keys below 2^31.
  explicit AreaIndex(const std::vector<Trapezoid>& pieces);

  int64_t area(Range rows) const { return above(rows.end) - above(rows.begin); }

 private:
  struct Knot {
    int64_t row;
    int64_t above;  // attended pairs of rows before `row`
    int64_t width;  // attended pairs of `row`
    int64_t slope;  // width's change from row to row, up to the next knot
  };
  int64_t above(int64_t row) const;

  std::vector<Knot> knots_;
};

}  // namespace attnmux
