#include "area_index.h"

#include <algorithm>

namespace attnmux {
namespace {

struct Change {
  int64_t row;
  int64_t width;
  int64_t slope;
};

}  // namespace

AreaIndex::AreaIndex(const std::vector<Trapezoid>& pieces) {
  std::vector<Change> changes;
  changes.reserve(2 * pieces.size());
  for (const Trapezoid& piece : pieces) {
    const int64_t slope = int64_t{piece.right.moving} - int64_t{piece.left.moving};
    changes.push_back({piece.q0, piece.keys(piece.q0).size(), slope});
    changes.push_back({piece.q1, -piece.keys(piece.q1).size(), -slope});  // its width there, were it to go on
  }
  std::sort(changes.begin(), changes.end(), [](const Change& a, const Change& b) { return a.row < b.row; });
  Knot knot{.row = 0, .above = 0, .width = 0, .slope = 0};
  for (size_t i = 0; i < changes.size();) {
    const int64_t rows = changes[i].row - knot.row;
    knot.above += rows * knot.width + knot.slope * (rows * (rows - 1) / 2);
    knot.width += knot.slope * rows;
    knot.row = changes[i].row;
    for (; i < changes.size() && changes[i].row == knot.row; ++i) {
      knot.width += changes[i].width;
      knot.slope += changes[i].slope;
    }
    knots_.push_back(knot);
  }
}

int64_t AreaIndex::above(int64_t row) const {
  const auto next =
      std::upper_bound(knots_.begin(), knots_.end(), row, [](int64_t r, const Knot& knot) { return r < knot.row; });
  if (next == knots_.begin()) return 0;
  const Knot& knot = *(next - 1);
  const int64_t rows = row - knot.row;
  return knot.above + rows * knot.width + knot.slope * (rows * (rows - 1) / 2);
}

}  // namespace attnmux
