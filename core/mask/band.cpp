#include "band.h"

#include <algorithm>
#include <array>

namespace attnmux {

void append_band(Range q, Range k, const SlidingWindow& window, std::vector<AttnSlice>* slices) {
  if (q.empty() || k.empty()) return;
  const int64_t diagonal = k.end - q.end;  // key - row on the diagonal
  // The longest reach that makes a difference; longer ones need not fit in int64 once added up.
  const int64_t far = q.size() + k.size();
  const int64_t left = window.left < 0 ? far : std::min(window.left, far);
  const int64_t right = window.right < 0 ? far : std::min(window.right, far);
  const int64_t sinks = std::min(window.sink_tokens, k.size());

  // Rows before `left_moves` see the document's keys from its first one on: either the window reaches that far, or it
  // touches the sinks. Rows from `right_rests` on see them to the last one.
  const int64_t left_moves = std::clamp(k.begin + sinks + 1 + left - diagonal, q.begin, q.end);
  const int64_t right_rests = std::clamp(k.end - 1 - right - diagonal, q.begin, q.end);
  std::array<int64_t, 4> cuts{q.begin, std::min(left_moves, right_rests), std::max(left_moves, right_rests), q.end};
  for (size_t i = 0; i + 1 < cuts.size(); ++i) {
    const Range rows{cuts[i], cuts[i + 1]};
    if (rows.empty()) continue;
    const bool moves_left = rows.begin >= left_moves;
    const bool moves_right = rows.begin < right_rests;
    const int64_t begin = moves_left ? rows.begin + diagonal - left : k.begin;
    const int64_t end = moves_right ? rows.end + diagonal + right : k.end;
    if (end <= k.begin) continue;  // the window ends before the first key in all of these rows
    const unsigned type = (moves_right ? 1u : 0u) | (moves_left ? 2u : 0u);
    slices->push_back({.q = rows, .k = {begin, end}, .type = static_cast<MaskType>(type)});
  }
  if (sinks > 0 && left_moves < q.end) {
    slices->push_back({.q = {left_moves, q.end}, .k = {k.begin, k.begin + sinks}, .type = MaskType::kFull});
  }
}

}  // namespace attnmux
