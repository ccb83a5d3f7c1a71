#include <algorithm>
#include <array>
#include <numeric>

#include "attnmux/mask.h"
#include "attnmux/mask_builders.h"
#include "attnmux/mask_family.h"
#include "check.h"
#include "random_mask.h"

namespace attnmux {
namespace {

std::vector<Range> runs_of_row(const std::vector<uint8_t>& dense, int64_t total_k, int64_t q) {
  std::vector<Range> runs;
  for (int64_t k = 0; k < total_k; ++k) {
    if (!dense[q * total_k + k]) continue;
    if (!runs.empty() && runs.back().end == k) {
      ++runs.back().end;
    } else {
      runs.push_back({k, k + 1});
    }
  }
  return runs;
}

TEST(MaskProperty, AreaOfOneSliceIsItsPairCount) {
  check_property(3000, [] {
    const RandomMask mask = *random_mask(80, 1);
    if (mask.slices.empty()) return;
    const std::vector<uint8_t> pairs = dense(mask);
    RC_ASSERT(area(mask.slices[0]) == std::accumulate(pairs.begin(), pairs.end(), int64_t{0}));
    for (int64_t q = 0; q < mask.total_q; ++q) {
      const std::vector<Range> runs = runs_of_row(pairs, mask.total_k, q);
      const Range keys = keys_of_row(mask.slices[0], q);
      RC_ASSERT((runs.empty() ? keys.empty() : runs.size() == 1 && keys == runs[0]));
    }
  });
}

TEST(MaskProperty, UnionMatchesTheDensePredicate) {
  check_property(6000, [] {
    const RandomMask mask = *random_mask();
    const AttnMaskSpec spec = mask.spec();
    const std::vector<uint8_t> pairs = dense(mask);
    RC_ASSERT(spec.area() == std::accumulate(pairs.begin(), pairs.end(), int64_t{0}));
    for (int64_t q = 0; q < mask.total_q; ++q) {
      const std::vector<Range> runs = runs_of_row(pairs, mask.total_k, q);
      RC_ASSERT(spec.keys_of_row(q) == runs);
      const int64_t attended = std::accumulate(runs.begin(), runs.end(), int64_t{0},
                                               [](int64_t sum, Range run) { return sum + run.size(); });
      RC_ASSERT(spec.area({q, q + 1}) == attended);
    }
    const Range rows = *random_range(mask.total_q);
    RC_ASSERT(spec.area(rows) == std::accumulate(pairs.begin() + rows.begin * mask.total_k,
                                                 pairs.begin() + rows.end * mask.total_k, int64_t{0}));
    for (int i = 0; i < 50 && !pairs.empty(); ++i) {
      const int64_t q = *rc::gen::inRange<int64_t>(0, mask.total_q);
      const int64_t k = *rc::gen::inRange<int64_t>(0, mask.total_k);
      RC_ASSERT(spec.allowed(q, k) == (pairs[q * mask.total_k + k] != 0));
    }
  });
}

TEST(MaskProperty, DisjointSlicesCoverEachPairOnceAndEachRowFully) {
  check_property(3000, [] {
    const RandomMask mask = *random_mask();
    const AttnMaskSpec spec = mask.spec();
    std::vector<uint8_t> cover(mask.total_q * mask.total_k, 0);
    for (const AttnSlice& slice : spec.disjoint_slices()) {
      for (int64_t q = slice.q.begin; q < slice.q.end; ++q) {
        RC_ASSERT(!keys_of_row(slice, q).empty());
        for (int64_t k = slice.k.begin; k < slice.k.end; ++k) {
          if (!attends(slice, q, k)) continue;
          RC_ASSERT(cover[q * mask.total_k + k] == 0);
          cover[q * mask.total_k + k] = 1;
        }
      }
    }
    RC_ASSERT(difference(cover, dense(mask), mask.total_k) == "");
  });
}

// The same pairs, written down differently.
AttnMaskSpec rewritten(const RandomMask& mask) {
  std::vector<AttnSlice> slices;
  for (const AttnSlice& slice : mask.slices) {
    const int64_t cut = *rc::gen::inRange<int64_t>(slice.q.begin, slice.q.end + 1);
    const bool left_moves = slice.type == MaskType::kInvCausal || slice.type == MaskType::kBiCausal;
    const bool right_moves = slice.type == MaskType::kCausal || slice.type == MaskType::kBiCausal;
    AttnSlice upper = slice;
    AttnSlice lower = slice;
    upper.q.end = lower.q.begin = cut;
    if (right_moves) upper.k.end = std::max(slice.k.end - (slice.q.end - cut), slice.k.begin);
    if (left_moves) lower.k.begin = std::min(slice.k.begin + (cut - slice.q.begin), slice.k.end);
    // Cut through clipped rows, the halves would not be the slice: keep it whole there.
    const bool clipped = area(upper) + area(lower) != area(slice);
    if (clipped || *rc::gen::arbitrary<bool>()) {
      slices.push_back(slice);
    } else {
      slices.push_back(upper);
      slices.push_back(lower);
    }
    if (*rc::gen::arbitrary<bool>()) slices.push_back(slice);
    if (slice.type == MaskType::kFull && *rc::gen::arbitrary<bool>()) {  // and along k
      const int64_t key = *rc::gen::inRange<int64_t>(slice.k.begin, slice.k.end + 1);
      slices.push_back({slice.q, {slice.k.begin, key}, MaskType::kFull});
      slices.push_back({slice.q, {key, slice.k.end}, MaskType::kFull});
    }
  }
  slices.push_back({{mask.total_q, mask.total_q}, {0, mask.total_k}, MaskType::kCausal});
  for (size_t i = slices.size(); i > 1; --i) std::swap(slices[i - 1], slices[*rc::gen::inRange<size_t>(0, i)]);
  return AttnMaskSpec(slices, mask.total_q, mask.total_k);
}

TEST(MaskProperty, HashDependsOnThePairsAlone) {
  check_property(4000, [] {
    const RandomMask mask = *random_mask();
    const AttnMaskSpec spec = mask.spec();
    const AttnMaskSpec other = rewritten(mask);
    RC_ASSERT(other.disjoint_slices() == spec.disjoint_slices());
    RC_ASSERT(other.hash() == spec.hash());
    RC_ASSERT(other == spec);
    const AttnMaskSpec from_pairs = mask_from_dense(dense(mask), mask.total_q, mask.total_k);
    RC_ASSERT(from_pairs.disjoint_slices() == spec.disjoint_slices());
    RC_ASSERT(from_pairs == spec);
  });
}

TEST(MaskProperty, HashTellsMasksApart) {
  check_property(2000, [] {
    const RandomMask mask = *random_mask(40);
    if (mask.total_q == 0 || mask.total_k == 0) return;
    std::vector<uint8_t> pairs = dense(mask);
    const AttnMaskSpec spec = mask.spec();
    pairs[*rc::gen::inRange<size_t>(0, pairs.size())] ^= 1;
    RC_ASSERT(mask_from_dense(pairs, mask.total_q, mask.total_k) != spec);
    RC_ASSERT(AttnMaskSpec(mask.slices, mask.total_q + 1, mask.total_k) != spec);
    RC_ASSERT(AttnMaskSpec(mask.slices, mask.total_q, mask.total_k + 1) != spec);
  });
}

TEST(MaskProperty, OverlapsAreFoundExactlyWhereTheyAre) {
  check_property(4000, [] {
    const RandomMask mask = *random_mask(60, 9);
    const AttnMaskSpec spec = mask.spec();
    int64_t sum = 0;
    for (const AttnSlice& slice : mask.slices) sum += area(slice);
    RC_ASSERT(spec.overlaps().empty() == (sum == spec.area()));
    RC_ASSERT(AttnMaskSpec(spec.disjoint_slices(), mask.total_q, mask.total_k).overlaps().empty());
    RC_ASSERT(spec.overlaps(1).size() == (sum == spec.area() ? 0u : 1u));
  });
}

// Packed documents of random lengths under one window.
TEST(MaskProperty, ClassifyFindsPackedDocuments) {
  check_property(3000, [] {
    const auto seqlens = *rc::gen::container<std::vector<int64_t>>(rc::gen::inRange<int64_t>(0, 20));
    const SlidingWindow window{.left = *rc::gen::inRange<int64_t>(-1, 25), .right = *rc::gen::inRange<int64_t>(-1, 25)};
    const AttnMaskSpec mask = sliding_window_mask(seqlens, window);
    const auto found = packed_documents(mask);
    RC_ASSERT(found.has_value());
    RC_ASSERT(found->family == classify(mask));
    RC_ASSERT(contains(MaskFamily::kSlidingWindow, found->family));
    std::vector<uint8_t> expected(mask.total_q() * mask.total_k(), 0);
    for (size_t i = 0; i + 1 < found->cu_seqlens_q.size(); ++i) {
      const int64_t diagonal = found->cu_seqlens_k[i + 1] - found->cu_seqlens_q[i + 1];
      for (int64_t q = found->cu_seqlens_q[i]; q < found->cu_seqlens_q[i + 1]; ++q) {
        for (int64_t k = found->cu_seqlens_k[i]; k < found->cu_seqlens_k[i + 1]; ++k) {
          const bool near = (found->left < 0 || k >= q + diagonal - found->left) &&
                            (found->right < 0 || k <= q + diagonal + found->right);
          expected[q * mask.total_k() + k] = near;
        }
      }
    }
    RC_ASSERT(mask_from_dense(expected, mask.total_q(), mask.total_k()) == mask);
  });
}

TEST(MaskProperty, SlidingWindowIsItsDefinition) {
  check_property(4000, [] {
    const auto seqlens = *rc::gen::container<std::vector<int64_t>>(rc::gen::inRange<int64_t>(0, 25));
    const SlidingWindow window{.left = *rc::gen::inRange<int64_t>(-1, 30),
                               .right = *rc::gen::inRange<int64_t>(-1, 30),
                               .sink_tokens = *rc::gen::inRange<int64_t>(0, 12)};
    const AttnMaskSpec mask = sliding_window_mask(seqlens, window);
    const int64_t total = std::accumulate(seqlens.begin(), seqlens.end(), int64_t{0});
    std::vector<uint8_t> expected(total * total, 0);
    int64_t first = 0;
    for (const int64_t length : seqlens) {
      for (int64_t i = 0; i < length; ++i) {
        for (int64_t j = 0; j < length; ++j) {
          const bool not_ahead = window.right < 0 || j <= i + window.right;
          const bool near = window.left < 0 || j >= i - window.left;
          expected[(first + i) * total + first + j] = not_ahead && (near || j < window.sink_tokens);
        }
      }
      first += length;
    }
    RC_ASSERT(mask.total_q() == total);
    RC_ASSERT(mask == mask_from_dense(expected, total, total));
    RC_ASSERT(mask.overlaps().empty());
  });
}

}  // namespace
}  // namespace attnmux
