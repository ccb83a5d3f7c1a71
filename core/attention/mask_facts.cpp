#include "mask_facts.h"

namespace attnmux {
namespace {

bool has_empty_rows(const AttnMaskSpec& mask) {
  // Disjoint slices are sorted by their first row, and each of their rows attends a key.
  int64_t covered = 0;
  for (const AttnSlice& slice : mask.disjoint_slices()) {
    if (slice.q.begin > covered) return true;
    covered = std::max(covered, slice.q.end);
  }
  return covered < mask.total_q();
}

}  // namespace

MaskFacts facts_of(const AttnMaskSpec& mask) {
  return {
      .family = classify(mask), .cross_lengths = mask.total_q() != mask.total_k(), .empty_rows = has_empty_rows(mask)};
}

}  // namespace attnmux
