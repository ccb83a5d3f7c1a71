#include "needed_keys.h"

#include <algorithm>

#include "../mask/trapezoid.h"
#include "attnmux/ranges.h"

namespace attnmux {

std::vector<std::vector<Range>> needed_keys(const AttnMaskSpec& mask, int64_t chunk_size,
                                            const std::vector<int32_t>& group_of_chunk, int64_t groups) {
  std::vector<std::vector<Range>> needed(groups);
  for (const AttnSlice& slice : mask.disjoint_slices()) {
    const Trapezoid piece = *to_trapezoid(slice);
    for (int64_t row = piece.q0; row < piece.q1;) {
      const int64_t chunk = row / chunk_size;
      const int64_t end = std::min(piece.q1, (chunk + 1) * chunk_size);
      // Each row has a key and edges move by one at most, so that rows' keys overlap or touch.
      const Range keys{piece.left.at(row), piece.right.at(end - 1)};
      std::vector<Range>& ranges = needed[group_of_chunk[chunk]];
      if (!ranges.empty() && ranges.back().begin <= keys.begin && keys.begin <= ranges.back().end) {
        ranges.back().end = std::max(ranges.back().end, keys.end);
      } else {
        ranges.push_back(keys);
      }
      row = end;
    }
  }
  for (std::vector<Range>& ranges : needed) ranges = unite(std::move(ranges));
  return needed;
}

}  // namespace attnmux
