// Random masks for property tests, and what they mean written down a second time: pair by pair, from the definition.
#pragma once

#include <rapidcheck.h>

#include <algorithm>
#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "attnmux/mask.h"

namespace attnmux {

struct RandomMask {
  int64_t total_q = 0;
  int64_t total_k = 0;
  std::vector<AttnSlice> slices;

  AttnMaskSpec spec() const { return AttnMaskSpec(slices, total_q, total_k); }
};

inline std::ostream& operator<<(std::ostream& out, const AttnSlice& slice) {
  return out << "{q [" << slice.q.begin << ", " << slice.q.end << ") k [" << slice.k.begin << ", " << slice.k.end
             << ") type " << static_cast<int>(slice.type) << "}";
}

inline std::ostream& operator<<(std::ostream& out, const RandomMask& mask) {
  out << mask.total_q << " x " << mask.total_k;
  for (const AttnSlice& slice : mask.slices) out << "\n  " << slice;
  return out;
}

// The definition, shared with nothing: row i of n, key j of m, counted inside the slice.
inline bool attends(const AttnSlice& slice, int64_t q, int64_t k) {
  if (q < slice.q.begin || q >= slice.q.end || k < slice.k.begin || k >= slice.k.end) return false;
  const int64_t i = q - slice.q.begin;
  const int64_t j = k - slice.k.begin;
  const int64_t rows = slice.q.end - slice.q.begin;
  const int64_t keys = slice.k.end - slice.k.begin;
  const bool right_edge = slice.type == MaskType::kCausal || slice.type == MaskType::kBiCausal;
  const bool left_edge = slice.type == MaskType::kInvCausal || slice.type == MaskType::kBiCausal;
  return (!right_edge || j + (rows - 1 - i) < keys) && (!left_edge || j >= i);
}

// Row-major [total_q, total_k].
inline std::vector<uint8_t> dense(const RandomMask& mask) {
  std::vector<uint8_t> pairs(mask.total_q * mask.total_k, 0);
  for (const AttnSlice& slice : mask.slices) {
    for (int64_t q = slice.q.begin; q < slice.q.end; ++q) {
      for (int64_t k = slice.k.begin; k < slice.k.end; ++k) pairs[q * mask.total_k + k] |= attends(slice, q, k);
    }
  }
  return pairs;
}

// What two dense masks disagree about: how many pairs, and the first of them. Empty where they agree.
inline std::string difference(const std::vector<uint8_t>& actual, const std::vector<uint8_t>& expected,
                              int64_t total_k) {
  if (actual.size() != expected.size()) {
    return std::to_string(actual.size()) + " pairs instead of " + std::to_string(expected.size());
  }
  int64_t wrong = 0;
  std::string first;
  for (size_t i = 0; i < actual.size(); ++i) {
    if ((actual[i] != 0) == (expected[i] != 0)) continue;
    if (wrong++ > 0) continue;
    first = "q " + std::to_string(i / total_k) + ", k " + std::to_string(i % total_k) + " is " +
            std::to_string(actual[i]) + " instead of " + std::to_string(expected[i]);
  }
  return wrong == 0 ? std::string() : std::to_string(wrong) + " pairs differ, the first: " + first;
}

// Lengths crowd around multiples of 16, where tiles end.
inline rc::Gen<int64_t> random_length(int64_t longest) {
  const auto near_tile_edge =
      rc::gen::map(rc::gen::pair(rc::gen::inRange<int64_t>(1, longest / 16 + 1), rc::gen::inRange<int64_t>(-1, 2)),
                   [](const std::pair<int64_t, int64_t>& p) { return 16 * p.first + p.second; });
  return rc::gen::weightedOneOf<int64_t>({{1, rc::gen::inRange<int64_t>(0, std::min<int64_t>(longest, 9))},
                                          {4, rc::gen::inRange<int64_t>(longest / 8, longest + 1)},
                                          {4, near_tile_edge}});
}

inline rc::Gen<Range> random_range(int64_t total) {
  const auto bound =
      rc::gen::oneOf(rc::gen::inRange<int64_t>(0, total + 1), rc::gen::element<int64_t>(0, total),
                     rc::gen::map(rc::gen::inRange<int64_t>(0, total / 16 + 1), [](int64_t i) { return 16 * i; }));
  return rc::gen::map(rc::gen::pair(bound, bound), [](const std::pair<int64_t, int64_t>& p) {
    return Range{std::min(p.first, p.second), std::max(p.first, p.second)};
  });
}

inline rc::Gen<RandomMask> random_mask(int64_t longest = 160, int64_t most_slices = 9) {
  // Always at full size: small masks are common enough in random_length.
  return rc::gen::resize(
      rc::kNominalSize,
      rc::gen::mapcat(
          rc::gen::pair(random_length(longest), random_length(longest)),
          [=](const std::pair<int64_t, int64_t>& totals) {
            const auto [total_q, total_k] = totals;
            const auto slice = rc::gen::build<AttnSlice>(
                rc::gen::set(&AttnSlice::q, random_range(total_q)), rc::gen::set(&AttnSlice::k, random_range(total_k)),
                rc::gen::set(&AttnSlice::type, rc::gen::element(MaskType::kFull, MaskType::kCausal,
                                                                MaskType::kInvCausal, MaskType::kBiCausal)));
            const auto slices = rc::gen::mapcat(rc::gen::inRange<int64_t>(0, most_slices + 1), [slice](int64_t count) {
              return rc::gen::container<std::vector<AttnSlice>>(static_cast<size_t>(count), slice);
            });
            return rc::gen::map(slices, [total_q, total_k](std::vector<AttnSlice> list) {
              return RandomMask{total_q, total_k, std::move(list)};
            });
          }));
}

}  // namespace attnmux
