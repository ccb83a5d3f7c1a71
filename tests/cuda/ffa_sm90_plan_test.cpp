// What the Hopper kernels would compute from their plans, replayed on the CPU: each attended pair once, no other.
#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <numeric>
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
  Visits(const AttnMaskSpec& mask, int rows)
      : columns_((mask.total_k() + kTile - 1) / kTile * kTile),
        counts_((mask.total_q() + rows - 1) / rows * rows * columns_) {}
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

// What a kernel reads beyond the last query is never written: a strip there may do as its neighbours.
TEST_P(PlanTest, forward_visits_attended_pairs_once) {
  const AttnMaskSpec& mask = GetParam().mask;
  const TilePlan tiles = make_tile_plan(mask, {.q = kStrip, .k = kTile});
  for (const int strips : {2, 3}) {
    SCOPED_TRACE(strips);
    const int rows = strips * kStrip;
    const ForwardPlan plan = make_forward_plan(tiles, strips);
    ASSERT_EQ(plan.records.size(), static_cast<size_t>((mask.total_q() + rows - 1) / rows));
    Visits visits(mask, rows);
    const auto visit = [&](int64_t q, int64_t k) {
      if (q / kStrip < tiles.num_q_tiles) visits.add(q, k);
    };
    int32_t previous_cost = INT32_MAX;
    for (const QTileRecord& record : plan.records) {
      EXPECT_LE(record.num_masked + record.num_unmasked, previous_cost);
      previous_cost = record.num_masked + record.num_unmasked;
      const int2* entry = plan.entries.data() + record.begin;
      for (int i = 0; i < record.num_masked; ++i, ++entry) {
        const uint32_t* bits = plan.masks.data() + entry->y * strips * kStripMaskWords;
        for (int thread = 0; thread < strips * 128; ++thread) {
          const int row = thread / 32 * 16 + thread % 32 / 4;
          for (int h = 0; h < 2; ++h) {
            for (int bit = 0; bit < 32; ++bit) {
              const int column = bit / 2 * 8 + thread % 4 * 2 + bit % 2;
              if (bits[thread * 2 + h] >> bit & 1) visit(record.q_tile * rows + row + 8 * h, entry->x * kTile + column);
            }
          }
        }
      }
      for (int left = record.num_unmasked; left > 0; left -= entry->y, ++entry) {
        for (int row = 0; row < rows; ++row) {
          for (int column = 0; column < entry->y * kTile; ++column) {
            visit(record.q_tile * rows + row, entry->x * kTile + column);
          }
        }
      }
    }
    visits.expect_equal(mask);
  }
}

TEST_P(PlanTest, backward_visits_attended_pairs_once) {
  const AttnMaskSpec& mask = GetParam().mask;
  const TilePlan tiles = make_tile_plan(mask, {.q = kTile, .k = kTile});
  for (const int rows : {64, 128}) {
    SCOPED_TRACE(rows);
    const BackwardPlan plan = make_backward_plan(tiles, transpose(tiles), rows);
    ASSERT_EQ(plan.records.size(), static_cast<size_t>(tiles.num_k_tiles));
    Visits visits(mask, kTile);
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

// In the order of records by k tile, every entry's rank is the number of entries of its step before it.
TEST_P(PlanTest, writers_are_ranked_by_key) {
  const TilePlan tiles = make_tile_plan(GetParam().mask, {.q = kTile, .k = kTile});
  for (const int rows : {64, 128}) {
    SCOPED_TRACE(rows);
    const BackwardPlan plan = make_backward_plan(tiles, transpose(tiles), rows);
    const int steps_of_tile = kTile / rows;
    std::vector<int32_t> written(tiles.num_q_tiles * steps_of_tile, 0);
    const auto write = [&](int step, int k_tile) {
      EXPECT_EQ(writer_rank(plan.writer_begin.data(), plan.writers.data(), step / steps_of_tile, step % steps_of_tile,
                            k_tile),
                written[step]++)
          << "step " << step << ", k tile " << k_tile;
    };
    std::map<std::pair<int, int>, int> masks;  // by step and k tile
    ASSERT_EQ(plan.ordered_records.size(), plan.records.size());
    for (int32_t k_tile = 0; k_tile < tiles.num_k_tiles; ++k_tile) {
      const KTileRecord& record = plan.ordered_records[k_tile];
      ASSERT_EQ(record.k_tile, k_tile);
      const int2* entry = plan.ordered_entries.data() + record.begin;
      const auto masked = [&](int32_t count) {
        for (int i = 0; i < count; ++i, ++entry) {
          masks[{entry->x, k_tile}] = entry->y;
          write(entry->x, k_tile);
        }
      };
      masked(record.num_masked);
      for (int left = record.num_unmasked; left > 0; left -= entry->y, ++entry) {
        for (int i = 0; i < entry->y; ++i) write(entry->x - i, k_tile);
      }
      masked(record.num_masked_behind);
    }
    // The same steps with the same masks as in any order.
    int steps = 0;
    for (const KTileRecord& record : plan.records) {
      for (int i = 0; i < record.num_masked; ++i) {
        const int2 entry = plan.entries[record.begin + i];
        ASSERT_TRUE(masks.contains({entry.x, record.k_tile}));
        EXPECT_EQ(masks.at({entry.x, record.k_tile}), entry.y);
      }
      steps += record.num_masked + record.num_unmasked;
    }
    EXPECT_EQ(std::accumulate(written.begin(), written.end(), 0), steps);
  }
}

TEST_P(PlanTest, rows_of_few_keys_are_listed) {
  const AttnMaskSpec& mask = GetParam().mask;
  const TilePlan tiles = make_tile_plan(mask, {.q = kTile, .k = kTile});
  const BackwardPlan plan = make_backward_plan(tiles, transpose(tiles), 64);
  size_t next = 0;
  for (int64_t row = 0; row < mask.total_q(); ++row) {
    std::vector<int32_t> keys;
    for (int64_t key = 0; key < mask.total_k(); ++key) {
      if (mask.allowed(row, key)) keys.push_back(static_cast<int32_t>(key));
    }
    if (keys.empty() || keys.size() > kScarceKeys) continue;
    keys.resize(kScarceKeys, -1);
    ASSERT_LT(next, plan.scarce_rows.size()) << "row " << row;
    const ScarceRow& scarce = plan.scarce_rows[next];
    EXPECT_EQ(scarce.row, row);
    EXPECT_EQ(keys, std::vector<int32_t>(scarce.keys, scarce.keys + kScarceKeys)) << "row " << row;
    ++next;
  }
  EXPECT_EQ(next, plan.scarce_rows.size());
}

INSTANTIATE_TEST_SUITE_P(Masks, PlanTest, ::testing::ValuesIn(testing::mask_cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace attnmux::ffa_sm90
