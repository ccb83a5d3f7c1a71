// An edge that moves with the rows moves in local numbers, too, while it is inside the keys asked for, and rests while
// it crosses a gap between them. So a trapezoid falls into as many as its moving edges meet bounds of key ranges,
// however many ranges lie between its edges.
#include "local_mask.h"

#include <algorithm>
#include <limits>

#include "attnmux/ranges.h"

namespace attnmux {
namespace {

class LocalNumbers {
 public:
  explicit LocalNumbers(const std::vector<Range>& ranges) : ranges_(ranges), before_(ranges.size() + 1, 0) {
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

std::vector<Trapezoid> trapezoids(const AttnMaskSpec& mask, bool resting) {
  std::vector<Trapezoid> pieces;
  for (const AttnSlice& slice : mask.disjoint_slices()) {
    const Trapezoid piece = *to_trapezoid(slice);
    if ((!piece.left.moving && !piece.right.moving) == resting) pieces.push_back(piece);
  }
  return pieces;
}

// Calls visit(piece) for every one that meets `rows` and begins at row `first` or behind it.
template <class Pieces, class Visit>
void for_each_in(const Pieces& pieces, Range rows, int64_t first, Visit&& visit) {
  const std::vector<Trapezoid>& sorted = pieces.sorted;
  pieces.index.for_each(
      sorted, rows.begin, [&](size_t i) { visit(sorted[i]); }, first);
  auto next = std::partition_point(sorted.begin(), sorted.end(),
                                   [&](const Trapezoid& piece) { return piece.q0 <= rows.begin; });
  for (; next != sorted.end() && next->q0 < rows.end; ++next) visit(*next);
}

}  // namespace

MaskRows::MaskRows(const AttnMaskSpec& mask)
    : resting_(trapezoids(mask, /*resting=*/true)), moving_(trapezoids(mask, /*resting=*/false)) {}

std::vector<Trapezoid> MaskRows::of(const std::vector<Range>& queries) const {
  const LocalNumbers local(queries);
  std::vector<Trapezoid> rows;
  int64_t before = 0, last_end = 0;
  for (const Range& range : queries) {
    for_each_in(moving_, range, 0, [&](const Trapezoid& piece) {
      const int64_t first = std::max(piece.q0, range.begin);
      const int64_t q0 = before + first - range.begin;
      rows.push_back({.q0 = q0,
                      .q1 = q0 + std::min(piece.q1, range.end) - first,
                      .left = Edge::through(q0, piece.left.at(first), piece.left.moving),
                      .right = Edge::through(q0, piece.right.at(first), piece.right.moving)});
    });
    for_each_in(resting_, range, last_end, [&](const Trapezoid& piece) {  // those before met an earlier range or none
      rows.push_back({.q0 = local.find(piece.q0).number,
                      .q1 = local.find(piece.q1).number,
                      .left = piece.left,
                      .right = piece.right});
    });
    before += range.size();
    last_end = range.end;
  }
  return rows;
}

std::vector<AttnSlice> local_slices(const std::vector<Trapezoid>& rows, const std::vector<Range>& keys) {
  const LocalNumbers local(keys);
  std::vector<AttnSlice> slices;
  for (const Trapezoid& piece : rows) {
    for (int64_t row = piece.q0; row < piece.q1;) {
      const LocalNumbers::Place left = local.find(piece.left.at(row));
      const LocalNumbers::Place right = local.find(piece.right.at(row));
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

std::vector<Range> attended_rows(const std::vector<AttnSlice>& slices) {
  std::vector<Range> rows;
  for (const AttnSlice& slice : slices) {
    if (const std::optional<Trapezoid> piece = to_trapezoid(slice)) rows.push_back({piece->q0, piece->q1});
  }
  return unite(std::move(rows));
}

std::vector<AttnSlice> without_other_rows(const std::vector<AttnSlice>& slices, const std::vector<Range>& rows) {
  const LocalNumbers local(rows);
  std::vector<AttnSlice> numbered;
  for (const AttnSlice& slice : slices) {
    const std::optional<Trapezoid> piece = to_trapezoid(slice);
    if (!piece) continue;
    const int64_t q0 = local.find(piece->q0).number;
    numbered.push_back(to_slice({.q0 = q0,
                                 .q1 = q0 + piece->height(),
                                 .left = Edge::through(q0, piece->left.at(piece->q0), piece->left.moving),
                                 .right = Edge::through(q0, piece->right.at(piece->q0), piece->right.moving)}));
  }
  return numbered;
}

}  // namespace attnmux
