// Divide and conquer over rows. Within a block of rows, trapezoids that cannot meet are told apart by their rows, keys
// and diagonals (key - row) and go separate ways; those that span the whole block are merged where one trapezoid can
// say so; what lies inside a spanning one is dropped; what is left is split at its median row. Nested, repeated and
// chained slices vanish high up in the recursion, so the work follows the union's outline, not the number of crossings
// inside it. (An outline can itself be quadratic, as that of a lattice: hence kMaxPieces.)
#include "disjoint.h"

#include <algorithm>
#include <string>

#include "attnmux/error.h"
#include "coalesce.h"

namespace attnmux {
namespace {

using Members = std::vector<Trapezoid>;

// How two trapezoids that span rows [first, last] lie to one another, b's left edge not before a's.
enum class Relation { kApart, kMerged, kCrossing };

class UnionSolver {
 public:
  explicit UnionSolver(Members* out) : out_(*out) {}

  void solve(Members members) {
    if (members.size() < 2) return emit(members);
    for_each_group(members, row_hull, [&](Members by_row) {
      for_each_group(by_row, key_hull, [&](Members by_key) {
        for_each_group(by_key, diagonal_hull, [&](Members group) { solve_group(std::move(group)); });
      });
    });
  }

 private:
  // A group is a chain of hulls that overlap or touch: trapezoids whose keys touch on a row may have to be merged,
  // those of different rows not.
  static Range row_hull(const Trapezoid& t) { return {t.q0, t.q1 - 1}; }
  static Range key_hull(const Trapezoid& t) { return t.key_hull(); }
  static Range diagonal_hull(const Trapezoid& t) {
    const int64_t last = t.q1 - 1;
    return {std::min(t.left.at(t.q0) - t.q0, t.left.at(last) - last),
            std::max(t.right.at(t.q0) - t.q0, t.right.at(last) - last)};
  }

  template <class Visit>
  void for_each_group(Members& members, Range (*hull)(const Trapezoid&), Visit visit) {
    if (members.size() < 2) return visit(std::move(members));
    const auto earlier = [&](const Trapezoid& a, const Trapezoid& b) { return hull(a).begin < hull(b).begin; };
    if (!std::is_sorted(members.begin(), members.end(), earlier)) std::sort(members.begin(), members.end(), earlier);
    size_t begin = 0;
    int64_t end_of_group = hull(members[0]).end;
    for (size_t i = 1; i <= members.size(); ++i) {
      if (i < members.size() && hull(members[i]).begin <= end_of_group) {
        end_of_group = std::max(end_of_group, hull(members[i]).end);
        continue;
      }
      if (begin == 0 && i == members.size()) return visit(std::move(members));
      if (i == begin + 1) {
        emit(members[begin]);
      } else {
        visit(Members(members.begin() + begin, members.begin() + i));
      }
      if (i == members.size()) return;
      begin = i;
      end_of_group = hull(members[i]).end;
    }
  }

  void solve_group(Members group) {
    if (group.size() < 2) return emit(group);
    Range rows{group[0].q0, group[0].q1};
    for (const Trapezoid& t : group) rows = {std::min(rows.begin, t.q0), std::max(rows.end, t.q1)};
    const auto first_partial = std::partition(
        group.begin(), group.end(), [&](const Trapezoid& t) { return t.q0 == rows.begin && t.q1 == rows.end; });
    Members partial(first_partial, group.end());
    group.erase(first_partial, group.end());
    std::vector<int64_t> crossings;
    merge_spanning(rows, &group, &crossings);
    drop_covered(rows, group, &partial);

    std::vector<int64_t> splits;
    for (const Trapezoid& t : partial) {
      if (t.q0 > rows.begin) splits.push_back(t.q0);
      if (t.q1 < rows.end) splits.push_back(t.q1);
    }
    if (splits.empty()) splits = std::move(crossings);
    if (splits.empty()) return emit(group);
    const auto median = splits.begin() + static_cast<int64_t>(splits.size() / 2);
    std::nth_element(splits.begin(), median, splits.end());
    const int64_t split = *median;

    group.insert(group.end(), partial.begin(), partial.end());
    Members(0).swap(partial);
    Members upper;
    for (Trapezoid t : group) {
      if (t.q0 >= split) continue;
      t.q1 = std::min(t.q1, split);
      upper.push_back(t);
    }
    std::erase_if(group, [&](const Trapezoid& t) { return t.q1 <= split; });
    for (Trapezoid& t : group) t.q0 = std::max(t.q0, split);
    solve(std::move(upper));
    solve(std::move(group));
  }

  // Replaces trapezoids that all span `rows` by fewer with the same union. Where two cross within `rows`, both stay
  // and the rows at which they would stop doing so are appended to `crossings`. Without crossings the result is apart.
  static void merge_spanning(Range rows, Members* spanning, std::vector<int64_t>* crossings) {
    const int64_t first = rows.begin;
    const int64_t last = rows.end - 1;
    std::sort(spanning->begin(), spanning->end(), [&](const Trapezoid& a, const Trapezoid& b) {
      return std::pair(a.left.at(first), a.left.at(last)) < std::pair(b.left.at(first), b.left.at(last));
    });
    size_t kept = 0;
    for (size_t i = 0; i < spanning->size(); ++i) {
      const Trapezoid next = (*spanning)[i];
      if (kept > 0) {
        Trapezoid& current = (*spanning)[kept - 1];
        const Relation relation = relate(current, next, first, last);
        if (relation == Relation::kMerged) {
          if (next.right.at(first) > current.right.at(first) || next.right.at(last) > current.right.at(last)) {
            current.right = next.right;
          }
          continue;
        }
        if (relation == Relation::kCrossing) add_crossings(current, next, rows, crossings);
      }
      (*spanning)[kept++] = next;
    }
    spanning->resize(kept);
  }

  static Relation relate(const Trapezoid& a, const Trapezoid& b, int64_t first, int64_t last) {
    const Range a0 = a.keys(first);
    const Range a1 = a.keys(last);
    const Range b0 = b.keys(first);
    const Range b1 = b.keys(last);
    if (b0.begin > a0.end && b1.begin > a1.end) return Relation::kApart;
    const bool touch = b0.begin <= a0.end && b1.begin <= a1.end && a1.begin <= b1.end;
    const bool one_left = a1.begin <= b1.begin;
    const bool one_right = (a0.end <= b0.end && a1.end <= b1.end) || (a0.end >= b0.end && a1.end >= b1.end);
    return touch && one_left && one_right ? Relation::kMerged : Relation::kCrossing;
  }

  static void add_crossings(const Trapezoid& a, const Trapezoid& b, Range rows, std::vector<int64_t>* crossings) {
    for (const Edge& x : {a.left, a.right}) {
      for (const Edge& y : {b.left, b.right}) {
        if (x.moving == y.moving) continue;
        const int64_t meet = x.moving ? y.offset - x.offset : x.offset - y.offset;
        // "Less" turns into "equal" at this row and into "greater" at the next; which of them matters depends on the
        // edges, and a split too many does no harm.
        for (const int64_t row : {meet, meet + 1}) {
          if (row > rows.begin && row < rows.end) crossings->push_back(row);
        }
      }
    }
  }

  // Drops trapezoids that lie inside a spanning one: inside the last that begins before them, or inside the widest.
  static void drop_covered(Range rows, const Members& spanning, Members* partial) {
    if (spanning.empty()) return;
    const int64_t middle = rows.begin + rows.size() / 2;
    const Trapezoid& widest = *std::max_element(
        spanning.begin(), spanning.end(),
        [&](const Trapezoid& a, const Trapezoid& b) { return a.keys(middle).size() < b.keys(middle).size(); });
    std::erase_if(*partial, [&](const Trapezoid& t) {
      if (covers(widest, t)) return true;
      const auto behind = std::upper_bound(spanning.begin(), spanning.end(), t.left.at(t.q0),
                                           [&](int64_t key, const Trapezoid& s) { return key < s.left.at(t.q0); });
      return behind != spanning.begin() && covers(*(behind - 1), t);
    });
  }

  // REQUIRES: outer has all rows of inner.
  static bool covers(const Trapezoid& outer, const Trapezoid& inner) {
    for (const int64_t row : {inner.q0, inner.q1 - 1}) {
      if (outer.left.at(row) > inner.left.at(row) || outer.right.at(row) < inner.right.at(row)) return false;
    }
    return true;
  }

  void emit(const Members& pieces) {
    for (const Trapezoid& piece : pieces) emit(piece);
  }

  void emit(const Trapezoid& piece) {
    if (out_.size() >= kMaxPieces) {
      throw Error(ErrorCode::kInvalidArgument,
                  "the mask falls into more than " + std::to_string(kMaxPieces) +
                      " disjoint pieces (its slices cut one another into a lattice); use fewer, larger slices");
    }
    out_.push_back(piece);
  }

  Members& out_;
};

}  // namespace

std::vector<Trapezoid> disjoint_trapezoids(const std::vector<AttnSlice>& slices) {
  Members members;
  members.reserve(slices.size());
  for (const AttnSlice& slice : slices) {
    if (const std::optional<Trapezoid> trapezoid = to_trapezoid(slice)) members.push_back(*trapezoid);
  }
  Members pieces;
  UnionSolver(&pieces).solve(std::move(members));
  return coalesce(std::move(pieces));
}

}  // namespace attnmux
