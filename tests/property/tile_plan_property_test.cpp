#include <algorithm>
#include <map>
#include <set>

#include "attnmux/mask_builders.h"
#include "attnmux/tile_plan.h"
#include "check.h"
#include "random_mask.h"

namespace attnmux {
namespace {

TileShape random_shape() { return {*rc::gen::element(16, 32, 64, 128), *rc::gen::element(16, 32, 64, 128)}; }

bool attends(const TileMasks& masks, int32_t id, int32_t row, int32_t key) {
  if (masks.is_interval(id)) {
    const RowInterval interval = masks.rows(id)[row];
    return key >= interval.begin && key < interval.end;
  }
  return masks.words(id)[row * masks.words_per_row() + key / 64] >> (key % 64) & 1u;
}

// Writes one run of tiles into `pairs` and checks it against what a tile may be.
void draw(const TilePlan& plan, int32_t q_tile, int32_t k_tile, int32_t mask_id, std::vector<uint8_t>* pairs) {
  const auto [tile_q, tile_k] = plan.shape;
  int64_t attended = 0;
  for (int32_t row = 0; row < tile_q; ++row) {
    for (int32_t key = 0; key < tile_k; ++key) {
      if (mask_id != kUnmasked && !attends(plan.masks, mask_id, row, key)) continue;
      const int64_t q = int64_t{q_tile} * tile_q + row;
      const int64_t k = int64_t{k_tile} * tile_k + key;
      RC_ASSERT(q < plan.total_q);
      RC_ASSERT(k < plan.total_k);
      uint8_t& pair = (*pairs)[q * plan.total_k + k];
      RC_ASSERT(pair == 0);
      pair = 1;
      ++attended;
    }
  }
  RC_ASSERT(attended > 0);                                                   // a masked-out tile is not listed
  if (mask_id != kUnmasked) RC_ASSERT(attended < int64_t{tile_q} * tile_k);  // nor a whole one as partial
}

void check_runs(std::span<const TileRun> runs, int32_t num_tiles) {
  for (size_t i = 0; i < runs.size(); ++i) {
    RC_ASSERT(runs[i].count >= 1);
    RC_ASSERT(runs[i].tile >= 0);
    RC_ASSERT(runs[i].tile + runs[i].count <= num_tiles);
    if (runs[i].mask_id != kUnmasked) RC_ASSERT(runs[i].count == 1);
    if (i == 0) continue;
    const TileRun& before = runs[i - 1];
    RC_ASSERT(before.tile + before.count <= runs[i].tile);
    const bool joinable = before.mask_id == kUnmasked && runs[i].mask_id == kUnmasked;
    if (joinable) RC_ASSERT(before.tile + before.count < runs[i].tile);
  }
}

// Distinct, in range, bit tiles only where some row has more than one interval, none unused.
void check_masks(const TilePlan& plan) {
  const TileMasks& masks = plan.masks;
  const int32_t num_masks = masks.num_intervals + masks.num_bits;
  RC_ASSERT(masks.shape == plan.shape);
  RC_ASSERT(std::ssize(masks.intervals) == int64_t{masks.num_intervals} * plan.shape.q);
  RC_ASSERT(std::ssize(masks.bits) == int64_t{masks.num_bits} * plan.shape.q * masks.words_per_row());
  std::set<int32_t> used;
  for (const TileRun& run : plan.run_list) {
    if (run.mask_id != kUnmasked) used.insert(run.mask_id);
  }
  RC_ASSERT(std::ssize(used) == num_masks);
  RC_ASSERT((used.empty() || (*used.begin() == 0 && *used.rbegin() == num_masks - 1)));
  std::set<std::vector<bool>> contents;
  for (int32_t id = 0; id < num_masks; ++id) {
    std::vector<bool> content;
    bool several_intervals = false;
    for (int32_t row = 0; row < plan.shape.q; ++row) {
      int intervals = 0;
      for (int32_t key = 0; key < plan.shape.k; ++key) {
        content.push_back(attends(masks, id, row, key));
        if (content.back() && (key == 0 || !content[content.size() - 2])) ++intervals;
      }
      several_intervals = several_intervals || intervals > 1;
      if (masks.is_interval(id)) RC_ASSERT(masks.rows(id)[row].begin <= masks.rows(id)[row].end);
    }
    RC_ASSERT(masks.is_interval(id) == !several_intervals);
    RC_ASSERT(contents.insert(content).second);
  }
}

void check_plan(const RandomMask& mask, TileShape shape) {
  const TilePlan plan = make_tile_plan(mask.spec(), shape);
  const std::vector<uint8_t> expected = dense(mask);
  RC_ASSERT(plan.total_q == mask.total_q);
  RC_ASSERT(plan.total_k == mask.total_k);
  RC_ASSERT(plan.area == std::count(expected.begin(), expected.end(), 1));
  RC_ASSERT(plan.num_q_tiles == (mask.total_q + shape.q - 1) / shape.q);
  RC_ASSERT(plan.num_k_tiles == (mask.total_k + shape.k - 1) / shape.k);
  RC_ASSERT(std::ssize(plan.run_offsets) == plan.num_q_tiles + 1);
  RC_ASSERT(plan.run_offsets.back() == std::ssize(plan.run_list));

  std::vector<uint8_t> drawn(expected.size(), 0);
  for (int32_t q_tile = 0; q_tile < plan.num_q_tiles; ++q_tile) {
    check_runs(plan.runs(q_tile), plan.num_k_tiles);
    int64_t tiles = 0;
    for (const TileRun& run : plan.runs(q_tile)) {
      for (int32_t i = 0; i < run.count; ++i) draw(plan, q_tile, run.tile + i, run.mask_id, &drawn);
      tiles += run.count;
    }
    RC_ASSERT(plan.tiles(q_tile) == tiles);
  }
  RC_ASSERT(difference(drawn, expected, mask.total_k) == "");
  check_masks(plan);

  const TransposedTilePlan transposed = transpose(plan);
  std::vector<uint8_t> transposed_drawn(expected.size(), 0);
  RC_ASSERT(std::ssize(transposed.run_offsets) == plan.num_k_tiles + 1);
  RC_ASSERT(transposed.run_offsets.back() == std::ssize(transposed.run_list));
  for (int32_t k_tile = 0; k_tile < plan.num_k_tiles; ++k_tile) {
    check_runs(transposed.runs(k_tile), plan.num_q_tiles);
    for (const TileRun& run : transposed.runs(k_tile)) {
      for (int32_t i = 0; i < run.count; ++i) draw(plan, run.tile + i, k_tile, run.mask_id, &transposed_drawn);
    }
  }
  RC_ASSERT(difference(transposed_drawn, expected, mask.total_k) == "");
}

TEST(TilePlanProperty, EveryPairOfEveryTile) {
  check_property(4000, [] { check_plan(*random_mask(200, 9), random_shape()); });
}

TEST(TilePlanProperty, ManySmallSlices) {
  check_property(300, [] { check_plan(*random_mask(330, 60), random_shape()); });
}

// Slices that meet on tile edges, so that tiles are whole only together.
TEST(TilePlanProperty, LatticesOfFullSlices) {
  check_property(1500, [] {
    RandomMask mask{*random_length(200), *random_length(200), {}};
    const auto cuts = [](int64_t total) {
      auto bounds = *rc::gen::container<std::vector<int64_t>>(rc::gen::inRange<int64_t>(0, total + 1));
      bounds.push_back(0);
      bounds.push_back(total);
      std::sort(bounds.begin(), bounds.end());
      return bounds;
    };
    const std::vector<int64_t> rows = cuts(mask.total_q);
    const std::vector<int64_t> keys = cuts(mask.total_k);
    for (size_t i = 0; i + 1 < rows.size(); ++i) {
      for (size_t j = 0; j + 1 < keys.size(); ++j) {
        if (*rc::gen::weightedElement<bool>({{5, true}, {1, false}})) {
          mask.slices.push_back({{rows[i], rows[i + 1]}, {keys[j], keys[j + 1]}, MaskType::kFull});
        }
      }
    }
    check_plan(mask, random_shape());
  });
}

TEST(TilePlanProperty, LongestFirstIsAPermutationByFallingCost) {
  check_property(1000, [] {
    const TilePlan plan = make_tile_plan((*random_mask(400, 9)).spec(), {16, 16});
    const TransposedTilePlan transposed = transpose(plan);
    const auto check_order = [](const auto& any_plan, int32_t num_tiles) {
      const std::vector<int32_t> order = longest_first(any_plan);
      RC_ASSERT(std::ssize(order) == num_tiles);
      RC_ASSERT(std::ssize(std::set<int32_t>(order.begin(), order.end())) == num_tiles);
      for (size_t i = 1; i < order.size(); ++i) {
        const int64_t before = any_plan.tiles(order[i - 1]);
        const int64_t cost = any_plan.tiles(order[i]);
        RC_ASSERT((before > cost || (before == cost && order[i - 1] < order[i])));
      }
    };
    check_order(plan, plan.num_q_tiles);
    check_order(transposed, plan.num_k_tiles);
  });
}

}  // namespace
}  // namespace attnmux
