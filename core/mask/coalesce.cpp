#include "coalesce.h"

#include <algorithm>
#include <tuple>

namespace attnmux {
namespace {

constexpr int64_t kNone = -1;

// Per piece, the piece whose last row it continues: key ranges of neighbouring rows whose two ends each move by 0 or 1.
// At most one fits, because the ranges of one row neither overlap nor touch. REQUIRES: sorted by (first row, first
// key).
std::vector<int64_t> predecessors(const std::vector<Trapezoid>& pieces) {
  std::vector<int64_t> by_end(pieces.size());
  for (size_t i = 0; i < by_end.size(); ++i) by_end[i] = static_cast<int64_t>(i);
  const auto end_key = [&](int64_t i) { return std::pair(pieces[i].q1, pieces[i].left.at(pieces[i].q1 - 1)); };
  std::sort(by_end.begin(), by_end.end(), [&](int64_t a, int64_t b) { return end_key(a) < end_key(b); });

  std::vector<int64_t> result(pieces.size(), kNone);
  size_t candidate = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const Range keys = pieces[i].keys(pieces[i].q0);
    while (candidate < by_end.size() && end_key(by_end[candidate]) < std::pair(pieces[i].q0, keys.begin - 1)) {
      ++candidate;
    }
    if (candidate == by_end.size()) break;
    const Trapezoid& above = pieces[by_end[candidate]];
    if (above.q1 != pieces[i].q0) continue;
    const Range above_keys = above.keys(above.q1 - 1);
    const int64_t left_step = keys.begin - above_keys.begin;
    const int64_t right_step = keys.end - above_keys.end;
    if ((left_step == 0 || left_step == 1) && (right_step == 0 || right_step == 1)) result[i] = by_end[candidate];
  }
  return result;
}

bool less(const Trapezoid& a, const Trapezoid& b) {
  return std::pair(a.q0, a.left.at(a.q0)) < std::pair(b.q0, b.left.at(b.q0));
}

}  // namespace

std::vector<Trapezoid> coalesce(std::vector<Trapezoid> pieces) {
  std::sort(pieces.begin(), pieces.end(), less);
  const std::vector<int64_t> predecessor = predecessors(pieces);
  std::vector<Trapezoid> joined;
  std::vector<size_t> holder(pieces.size());  // the joined piece that holds a piece's last row
  for (size_t i = 0; i < pieces.size(); ++i) {
    Trapezoid piece = pieces[i];
    if (predecessor[i] != kNone) {
      holder[i] = holder[predecessor[i]];
      Trapezoid& above = joined[holder[i]];
      const Range last = above.keys(above.q1 - 1);
      const Range next = piece.keys(piece.q0);
      const bool left_moves = next.begin > last.begin;
      const bool right_moves = next.end > last.end;
      if (above.height() == 1) {  // one row has no slope yet
        above.left = Edge::through(above.q0, last.begin, left_moves);
        above.right = Edge::through(above.q0, last.end, right_moves);
      }
      if (above.left.moving == left_moves && above.right.moving == right_moves) {
        ++above.q1;
        ++piece.q0;
        if (piece.height() > 0 && piece.left == above.left && piece.right == above.right) {
          above.q1 = piece.q1;
          piece.q0 = piece.q1;
        }
        if (piece.height() == 0) continue;
      }
    }
    holder[i] = joined.size();
    joined.push_back(piece);
  }
  for (Trapezoid& piece : joined) {
    if (piece.height() > 1) continue;
    const Range keys = piece.keys(piece.q0);
    piece.left = Edge::through(piece.q0, keys.begin, /*moving=*/false);
    piece.right = Edge::through(piece.q0, keys.end, /*moving=*/false);
  }
  std::sort(joined.begin(), joined.end(), less);
  return joined;
}

}  // namespace attnmux
