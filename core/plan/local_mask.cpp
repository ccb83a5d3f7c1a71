// An edge that moves with the rows moves in local numbers, too, while it is inside the keys asked for, and rests while
// it crosses a gap between them. So a trapezoid falls into as many as its moving edges meet bounds of key ranges,
// however many ranges lie between its edges.
#include "local_mask.h"

#include <algorithm>
#include <limits>

namespace attnmux {
namespace {

class LocalKeys {
 public:
  explicit LocalKeys(const std::vector<Range>& ranges) : ranges_(ranges), before_(ranges.size() + 1, 0) {
    for (size_t i = 0; i < ranges.size(); ++i) before_[i + 1] = before_[i] + ranges[i].size();
  }

  struct Place {
    int64_t number;  // keys before it
    bool inside;
    int64_t stays;  // for how many keys on that is so
  };
  Place find(int64_t key) const {
    const auto at = std::partition_point(ranges_.begin(), ranges_.end(), [&](const Range& r) { return r.end <= key; });
    const int64_t before = before_[at - ranges_.begin()];
    if (at == ranges_.end()) return {before, false, std::numeric_limits<int64_t>::max()};
    if (key < at->begin) return {before, false, at->begin - key};
    return {before + key - at->begin, true, at->end - key};
  }

 private:
  const std::vector<Range>& ranges_;
  std::vector<int64_t> before_;
};

}  // namespace

std::vector<Trapezoid> local_rows(const std::vector<Trapezoid>& pieces, const RowIndex& index,
                                  const std::vector<Range>& queries) {
  std::vector<Trapezoid> rows;
  int64_t before = 0;
  for (const Range& range : queries) {
    const auto add = [&](const Trapezoid& piece) {
      const int64_t first = std::max(piece.q0, range.begin);
      const int64_t local = before + first - range.begin;
      rows.push_back({.q0 = local,
                      .q1 = local + std::min(piece.q1, range.end) - first,
                      .left = Edge::through(local, piece.left.at(first), piece.left.moving),
                      .right = Edge::through(local, piece.right.at(first), piece.right.moving)});
    };
    index.for_each(pieces, range.begin, [&](size_t i) { add(pieces[i]); });
    auto next = std::partition_point(pieces.begin(), pieces.end(),
                                     [&](const Trapezoid& piece) { return piece.q0 <= range.begin; });
    for (; next != pieces.end() && next->q0 < range.end; ++next) add(*next);
    before += range.size();
  }
  return rows;
}

std::vector<AttnSlice> local_slices(const std::vector<Trapezoid>& rows, const std::vector<Range>& keys) {
  const LocalKeys local(keys);
  std::vector<AttnSlice> slices;
  for (const Trapezoid& piece : rows) {
    for (int64_t row = piece.q0; row < piece.q1;) {
      const LocalKeys::Place left = local.find(piece.left.at(row));
      const LocalKeys::Place right = local.find(piece.right.at(row));
      int64_t height = piece.q1 - row;
      if (piece.left.moving) height = std::min(height, left.stays);
      if (piece.right.moving) height = std::min(height, right.stays);
      const AttnSlice slice = to_slice({.q0 = row,
                                        .q1 = row + height,
                                        .left = Edge::through(row, left.number, piece.left.moving && left.inside),
                                        .right = Edge::through(row, right.number, piece.right.moving && right.inside)});
      if (!slice.k.empty()) slices.push_back(slice);
      row += height;
    }
  }
  return slices;
}

}  // namespace attnmux
