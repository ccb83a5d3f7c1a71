// Which trapezoids have a given row: an interval tree laid over the array that is sorted by first row.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "trapezoid.h"

namespace attnmux {

class RowIndex {
 public:
  // REQUIRES: sorted by q0.
  explicit RowIndex(const std::vector<Trapezoid>& pieces) : last_end_(pieces.size()) {
    build(pieces, 0, pieces.size());
  }

  // Calls visit(index) for every piece that has `row`, in ascending order of index; of these only pieces that begin at
  // row `first` or behind it. O(log pieces) each. REQUIRES: the pieces the index was built from.
  template <class Visit>
  void for_each(const std::vector<Trapezoid>& pieces, int64_t row, Visit&& visit, int64_t first = 0) const {
    const auto begin =
        std::partition_point(pieces.begin(), pieces.end(), [&](const Trapezoid& piece) { return piece.q0 < first; });
    find(pieces, row, 0, pieces.size(), static_cast<size_t>(begin - pieces.begin()), visit);
  }

 private:
  // The middle of [begin, end) is the root of that range's subtree; last_end_[middle] is the largest q1 in it.
  int64_t build(const std::vector<Trapezoid>& pieces, size_t begin, size_t end) {
    if (begin == end) return 0;
    const size_t middle = begin + (end - begin) / 2;
    last_end_[middle] = std::max({build(pieces, begin, middle), pieces[middle].q1, build(pieces, middle + 1, end)});
    return last_end_[middle];
  }

  template <class Visit>
  void find(const std::vector<Trapezoid>& pieces, int64_t row, size_t begin, size_t end, size_t from,
            Visit& visit) const {
    if (begin == end || end <= from) return;
    const size_t middle = begin + (end - begin) / 2;
    if (last_end_[middle] <= row) return;
    find(pieces, row, begin, middle, from, visit);
    if (pieces[middle].q0 > row) return;
    if (middle >= from && pieces[middle].q1 > row) visit(middle);
    find(pieces, row, middle + 1, end, from, visit);
  }

  std::vector<int64_t> last_end_;
};

}  // namespace attnmux
