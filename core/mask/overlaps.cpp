// Shamos and Hoey's sweep ("Geometric intersection problems", 1976) over rows: of the slices that have the current row,
// ordered by key, only neighbours can be the next to overlap. A slice found to overlap leaves the sweep, so that the
// order stays one.
#include "overlaps.h"

#include <algorithm>
#include <optional>
#include <set>

#include "trapezoid.h"

namespace attnmux {
namespace {

void keep_rows_where_less(Edge a, Edge b, int64_t* first, int64_t* last) {
  if (a.moving == b.moving) {
    if (a.offset >= b.offset) *last = *first - 1;
  } else if (a.moving) {
    *last = std::min(*last, b.offset - a.offset - 1);
  } else {
    *first = std::max(*first, a.offset - b.offset + 1);
  }
}

// Two ranges overlap in a row where each begins before the other ends; with edges that move by at most one key a row,
// each of the two conditions holds on one run of rows.
bool overlap(const Trapezoid& a, const Trapezoid& b) {
  int64_t first = std::max(a.q0, b.q0);
  int64_t last = std::min(a.q1, b.q1) - 1;
  keep_rows_where_less(a.left, b.right, &first, &last);
  keep_rows_where_less(b.left, a.right, &first, &last);
  return first <= last;
}

struct Active {
  const Trapezoid* trapezoid;
  size_t index;
};

struct ByKey {
  const int64_t* row;
  bool operator()(const Active& a, const Active& b) const {
    return a.trapezoid->left.at(*row) < b.trapezoid->left.at(*row);
  }
};

}  // namespace

std::vector<std::pair<size_t, size_t>> overlapping_pairs(const std::vector<AttnSlice>& slices, size_t limit) {
  std::vector<std::optional<Trapezoid>> trapezoids;
  std::vector<size_t> by_begin;
  for (size_t i = 0; i < slices.size(); ++i) {
    trapezoids.push_back(to_trapezoid(slices[i]));
    if (trapezoids[i]) by_begin.push_back(i);
  }
  std::vector<size_t> by_end = by_begin;
  std::sort(by_begin.begin(), by_begin.end(),
            [&](size_t a, size_t b) { return trapezoids[a]->q0 < trapezoids[b]->q0; });
  std::sort(by_end.begin(), by_end.end(), [&](size_t a, size_t b) { return trapezoids[a]->q1 < trapezoids[b]->q1; });

  int64_t row = 0;
  using Sweep = std::set<Active, ByKey>;
  Sweep sweep(ByKey{&row});
  std::vector<Sweep::iterator> place(slices.size(), sweep.end());
  std::vector<std::pair<size_t, size_t>> pairs;
  const auto report = [&](size_t a, size_t b) { pairs.emplace_back(std::min(a, b), std::max(a, b)); };

  const auto leave = [&](size_t leaving) {
    if (place[leaving] == sweep.end()) return;  // it overlapped another slice before
    Sweep::iterator after = sweep.erase(place[leaving]);
    place[leaving] = sweep.end();
    while (after != sweep.end() && after != sweep.begin() && pairs.size() < limit) {
      const Active before = *std::prev(after);
      if (!overlap(*before.trapezoid, *after->trapezoid)) break;
      report(before.index, after->index);
      place[after->index] = sweep.end();
      after = sweep.erase(after);
    }
  };

  const auto enter = [&](size_t entering) {
    const Active active{&*trapezoids[entering], entering};
    const Sweep::iterator after = sweep.lower_bound(active);
    if (after != sweep.end() && overlap(*active.trapezoid, *after->trapezoid)) return report(entering, after->index);
    if (after != sweep.begin() && overlap(*active.trapezoid, *std::prev(after)->trapezoid)) {
      return report(entering, std::prev(after)->index);
    }
    place[entering] = sweep.insert(after, active);
  };

  size_t ended = 0;
  for (size_t i = 0; i < by_begin.size() && pairs.size() < limit; ++i) {
    const int64_t next_row = trapezoids[by_begin[i]]->q0;
    for (; ended < by_end.size() && trapezoids[by_end[ended]]->q1 <= next_row; ++ended) leave(by_end[ended]);
    row = next_row;
    if (pairs.size() < limit) enter(by_begin[i]);
  }
  for (; ended < by_end.size() && pairs.size() < limit; ++ended) leave(by_end[ended]);
  std::sort(pairs.begin(), pairs.end());
  return pairs;
}

}  // namespace attnmux
