#include "needed_keys.h"

#include <algorithm>

#include "../mask/trapezoid.h"
#include "attnmux/ranges.h"

namespace attnmux {

namespace {

class NeededKeys {
 public:
  NeededKeys(int64_t chunk_size, const std::vector<int32_t>& group_of_chunk, int64_t groups)
      : chunk_size_(chunk_size), group_of_chunk_(group_of_chunk), chunks_(groups), needed_(groups) {
    for (int64_t chunk = 0; chunk < std::ssize(group_of_chunk); ++chunk) {
      chunks_[group_of_chunk[chunk]].push_back(chunk);
    }
  }

  void add(const Trapezoid& piece) {
    const int64_t first = piece.q0 / chunk_size_, last = (piece.q1 - 1) / chunk_size_;
    const bool rests = !piece.left.moving || !piece.right.moving;
    if (rests && last - first > std::ssize(needed_)) {
      add_by_group(piece, first, last);
    } else {
      for (int64_t chunk = first; chunk <= last; ++chunk) add(piece, chunk, chunk, group_of_chunk_[chunk]);
    }
  }

  std::vector<std::vector<Range>> take() {
    for (std::vector<Range>& ranges : needed_) ranges = unite(std::move(ranges));
    return std::move(needed_);
  }

 private:
  // Where an edge rests, all rows share a key at it: what a group's chunks attend is one range, from the first of its
  // chunks to the last.
  void add_by_group(const Trapezoid& piece, int64_t first, int64_t last) {
    for (int64_t group = 0; group < std::ssize(chunks_); ++group) {
      const std::vector<int64_t>& chunks = chunks_[group];
      const auto begin = std::lower_bound(chunks.begin(), chunks.end(), first);
      const auto end = std::upper_bound(begin, chunks.end(), last);
      if (begin != end) add(piece, *begin, *(end - 1), group);
    }
  }

  // Each row has a key and edges move by one at most, so that keys of neighbouring rows overlap or touch.
  void add(const Trapezoid& piece, int64_t first_chunk, int64_t last_chunk, int64_t group) {
    const int64_t first = std::max(piece.q0, first_chunk * chunk_size_);
    const int64_t last = std::min(piece.q1, (last_chunk + 1) * chunk_size_) - 1;
    const Range keys{piece.left.at(first), piece.right.at(last)};
    std::vector<Range>& ranges = needed_[group];
    if (!ranges.empty() && ranges.back().begin <= keys.begin && keys.begin <= ranges.back().end) {
      ranges.back().end = std::max(ranges.back().end, keys.end);
    } else {
      ranges.push_back(keys);
    }
  }

  int64_t chunk_size_;
  const std::vector<int32_t>& group_of_chunk_;
  std::vector<std::vector<int64_t>> chunks_;  // by group, ascending
  std::vector<std::vector<Range>> needed_;
};

}  // namespace

std::vector<std::vector<Range>> needed_keys(const AttnMaskSpec& mask, int64_t chunk_size,
                                            const std::vector<int32_t>& group_of_chunk, int64_t groups) {
  NeededKeys needed(chunk_size, group_of_chunk, groups);
  for (const AttnSlice& slice : mask.disjoint_slices()) needed.add(*to_trapezoid(slice));
  return needed.take();
}

}  // namespace attnmux
