// What the Hopper kernels would compute from their plans, replayed on the CPU: each attended pair once, no other.
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "attnmux/tile_plan.h"
#include "ffa_sm90/backward_plan.h"
#include "ffa_sm90/forward_plan.h"
#include "mask_cases.h"

namespace attnmux::ffa_sm90 {
namespace {

// How often each pair is visited, on the grid of whole tiles.
class Visits {
 public:
  explicit Visits(const TilePlan& plan)
      : columns_(plan.num_k_tiles * kTile), counts_(plan.num_q_tiles * kTile * columns_) {}
  void add(int64_t q, int64_t k) { ++counts_[q * columns_ + k]; }

  void expect_equal(const AttnMaskSpec& mask) const {
    int64_t wrong = 0;
    for (int64_t q = 0; q * columns_ < static_cast<int64_t>(counts_.size()); ++q) {
      for (int64_t k = 0; k < columns_; ++k) {
        const bool inside = q < mask.total_q() && k < mask.total_k();
        const int want = inside && mask.allowed(q, k) ? 1 : 0;
        const int got = counts_[q * columns_ + k];
        if (got == want) continue;
        if (++wrong == 1)
          ADD_FAILURE() << "pair (" << q << ", " << k << ") visited " << got << " times, expected " << want;
      }
    }
    EXPECT_EQ(wrong, 0) << "pairs visited wrongly";
  }

 private:
  int64_t columns_;
  std::vector<int> counts_;
};

class PlanTest : public ::testing::TestWithParam<testing::MaskCase> {};

TEST_P(PlanTest, forward_visits_attended_pairs_once) {
  const AttnMaskSpec& mask = GetParam().mask;
  const TilePlan tiles = make_tile_plan(mask, {.q = kTile, .k = kTile});
  const ForwardPlan plan = make_forward_plan(tiles);
  ASSERT_EQ(plan.records.size(), static_cast<size_t>(tiles.num_q_tiles));
  Visits visits(tiles);
  int32_t previous_cost = INT32_MAX;
  for (const QTileRecord& record : plan.records) {
    EXPECT_LE(record.num_masked + record.num_unmasked, previous_cost);
    previous_cost = record.num_masked + record.num_unmasked;
    const int2* entry = plan.entries.data() + record.begin;
    for (int i = 0; i < record.num_masked; ++i, ++entry) {
      const MaskTile& bits = plan.masks[entry->y];
      for (int thread = 0; thread < 256; ++thread) {
        const int row = thread / 32 * 16 + thread % 32 / 4;
        for (int h = 0; h < 2; ++h) {
          for (int bit = 0; bit < 32; ++bit) {
            const int column = bit / 2 * 8 + thread % 4 * 2 + bit % 2;
            if (bits[thread * 2 + h] >> bit & 1) {
              visits.add(record.q_tile * kTile + row + 8 * h, entry->x * kTile + column);
            }
          }
        }
      }
    }
    for (int left = record.num_unmasked; left > 0; left -= entry->y, ++entry) {
      for (int row = 0; row < kTile; ++row) {
        for (int column = 0; column < entry->y * kTile; ++column) {
          visits.add(record.q_tile * kTile + row, entry->x * kTile + column);
        }
      }
    }
  }
  visits.expect_equal(mask);
}

TEST_P(PlanTest, backward_visits_attended_pairs_once) {
  const AttnMaskSpec& mask = GetParam().mask;
  const TilePlan tiles = make_tile_plan(mask, {.q = kTile, .k = kTile});
  for (const int rows : {64, 128}) {
    SCOPED_TRACE(rows);
    const BackwardPlan plan = make_backward_plan(tiles, transpose(tiles), rows);
    ASSERT_EQ(plan.records.size(), static_cast<size_t>(tiles.num_k_tiles));
    Visits visits(tiles);
    const int words = rows / 64;
    for (const KTileRecord& record : plan.records) {
      const int2* entry = plan.entries.data() + record.begin;
      for (int i = 0; i < record.num_masked; ++i, ++entry) {
        for (int w = 0; w < words; ++w) {
          for (int thread = 0; thread < 256; ++thread) {
            const uint32_t word = plan.masks[(entry->y * words + w) * 256 + thread];
            const int key = thread / 32 * 16 + thread % 32 / 4;
            for (int bit = 0; bit < 32; ++bit) {
              if (!(word >> bit & 1)) continue;
              const int query = 64 * w + bit / 4 * 8 + thread % 4 * 2 + bit % 2;
              visits.add(entry->x * rows + query, record.k_tile * kTile + key + bit / 2 % 2 * 8);
            }
          }
        }
      }
      for (int left = record.num_unmasked; left > 0; left -= entry->y, ++entry) {
        for (int query = entry->x * rows; query < (entry->x + entry->y) * rows; ++query) {
          for (int key = 0; key < kTile; ++key) visits.add(query, record.k_tile * kTile + key);
        }
      }
    }
    visits.expect_equal(mask);
  }
}

INSTANTIATE_TEST_SUITE_P(Masks, PlanTest, ::testing::ValuesIn(testing::mask_cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace attnmux::ffa_sm90
