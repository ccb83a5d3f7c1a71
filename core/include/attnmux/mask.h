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

// Exact number of attended pairs of one slice.
ATTNMUX_API int64_t area(const AttnSlice& slice);

// A union of slices over total_q queries and total_k keys: a pair covered twice counts once.
class ATTNMUX_API AttnMaskSpec {
 public:
  // Throws Error(kInvalidArgument) naming every slice that is out of range or inverted, with its index and values.
  AttnMaskSpec(std::vector<AttnSlice> slices, int64_t total_q, int64_t total_k);

  int64_t total_q() const;
  int64_t total_k() const;
  const std::vector<AttnSlice>& slices() const;  // as given, empty ones dropped

  // Exact number of attended pairs, of the union. Computed once.
  int64_t area() const;

  // Attended pairs of queries [rows.begin, rows.end), of the union.
  int64_t area(Range rows) const;

  bool allowed(int64_t q, int64_t k) const;

  // Sorted, disjoint, non-adjacent key ranges of one row; empty for a row without keys.
  std::vector<Range> keys_of_row(int64_t row) const;

  // Content hash over a canonical form: slice order, empty slices and slices that cover one another or join into one
  // do not change it. Equal hashes mean equal masks; equal masks of a very different cut may hash apart.
  Hash128 hash() const;

  // Overlapping pairs of slices as readable lines, at most `limit` of them; empty when the slices are disjoint.
  std::vector<std::string> overlaps(size_t limit = 16) const;

  friend bool operator==(const AttnMaskSpec& a, const AttnMaskSpec& b) {
    return a.total_q() == b.total_q() && a.total_k() == b.total_k() && a.hash() == b.hash();
  }

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

}  // namespace attnmux
