// The mask as a value: which query may attend which key.
//
//   AttnMaskSpec mask({{.q = {0, 4}, .k = {0, 4}, .type = MaskType::kCausal}}, /*total_q=*/4, /*total_k=*/4);
//   mask.area();         // 10 attended pairs
//   mask.allowed(1, 2);  // false: key 2 lies after query 1
//
// Immutable and cheap to copy (shared state); safe to read from any thread. Builders: mask_builders.h;
// text and JSON: mask_io.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "attnmux/export.h"
#include "attnmux/hash.h"

namespace attnmux {

// Half-open [begin, end).
struct Range {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
  bool empty() const { return end <= begin; }
  friend bool operator==(const Range&, const Range&) = default;
};

// Bit 0: the right edge follows the diagonal that ends in the slice's bottom-right corner.
// Bit 1: the left edge follows the diagonal that starts in its top-left corner.
enum class MaskType : uint8_t { kFull = 0, kCausal = 1, kInvCausal = 2, kBiCausal = 3 };

// Row q of the slice attends keys
//   [k.begin + (type & 2 ? q - q.begin : 0),  k.end - (type & 1 ? q.end - 1 - q : 0))
// clipped to [k.begin, k.end); none where that is inverted.
struct AttnSlice {
  Range q;
  Range k;
  MaskType type = MaskType::kFull;
  friend bool operator==(const AttnSlice&, const AttnSlice&) = default;
};

// Keys that row `row` of the slice attends; empty outside slice.q.
ATTNMUX_API Range keys_of_row(const AttnSlice& slice, int64_t row);

// Exact number of attended pairs of one slice. Throws Error(kInvalidArgument) where a side is 2^31 or longer.
ATTNMUX_API int64_t area(const AttnSlice& slice);

// A union of slices over total_q queries and total_k keys: a pair covered twice counts once.
class ATTNMUX_API AttnMaskSpec {
 public:
  // Totals are below 2^31, so that every area fits in int64. Throws Error(kInvalidArgument) naming the slices that are
  // out of range or inverted, with index and values, and for a union that falls into more than 2^22 pieces.
  // O((slices + pieces of the union) log^2).
  AttnMaskSpec(std::vector<AttnSlice> slices, int64_t total_q, int64_t total_k);

  int64_t total_q() const;
  int64_t total_k() const;
  const std::vector<AttnSlice>& slices() const;  // as given, empty ones dropped

  // The canonical form: the union cut into disjoint slices, a function of the attended pairs alone. Each row of each
  // slice attends at least one key, on one row no two slices overlap or touch; sorted by (q.begin, k.begin). What plans
  // and pictures are made from: nothing is left to merge.
  const std::vector<AttnSlice>& disjoint_slices() const;

  // Exact number of attended pairs, of the union.
  int64_t area() const;

  // Attended pairs of queries [rows.begin, rows.end), of the union. O(log slices).
  int64_t area(Range rows) const;

  bool allowed(int64_t q, int64_t k) const;

  // Sorted, disjoint, non-adjacent key ranges of one row; empty for a row without keys.
  std::vector<Range> keys_of_row(int64_t row) const;

  // Content hash of totals and canonical form: two masks hash alike where they attend the same pairs, however their
  // slices are ordered, repeated or cut.
  Hash128 hash() const;

  // Overlapping slices as readable lines, at most `limit` of them; empty when the slices are disjoint. Where many
  // overlap, each of them is named rather than every pair.
  // Not an error, often a mistake: the union counts such pairs once, another system might count them twice.
  std::vector<std::string> overlaps(size_t limit = 16) const;

  friend bool operator==(const AttnMaskSpec& a, const AttnMaskSpec& b) {
    return a.total_q() == b.total_q() && a.total_k() == b.total_k() && a.hash() == b.hash();
  }

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

}  // namespace attnmux
