#include "ffa_sm90/backward_plan.h"

#include <algorithm>

#include "ffa_sm90/mask_bits.h"

namespace attnmux::ffa_sm90 {
namespace {

enum class Fill : uint8_t { kEmpty, kPartial, kFull };

Fill fill_of(const TileBits& tile, int first_row, int rows) {
  bool any = false, all = true;
  for (int row = first_row; row < first_row + rows; ++row) {
    for (const uint64_t word : tile[row]) {
      any |= word != 0;
      all &= word == ~uint64_t{0};
    }
  }
  return all ? Fill::kFull : any ? Fill::kPartial : Fill::kEmpty;
}

// One word a thread for 64 queries from `first_row` on and all 128 keys.
void append_words(const TileBits& tile, int first_row, std::vector<uint32_t>& masks) {
  for (int thread = 0; thread < 256; ++thread) {
    const int key = thread / 32 * 16 + thread % 32 / 4;
    uint32_t word = 0;
    for (int j = 0; j < 8; ++j) {
      for (int h = 0; h < 2; ++h) {
        for (int e = 0; e < 2; ++e) {
          const int row = first_row + 8 * j + thread % 4 * 2 + e, column = key + 8 * h;
          word |= static_cast<uint32_t>(tile[row][column / 64] >> (column % 64) & 1) << (4 * j + 2 * h + e);
        }
      }
    }
    masks.push_back(word);
  }
}

// What a partial tile comes to in steps: fill and mask index of each.
struct StepMasks {
  std::array<Fill, 2> fill;
  std::array<int32_t, 2> mask;
};

}  // namespace

BackwardPlan make_backward_plan(const TilePlan& plan, const TransposedTilePlan& by_key, int rows) {
  const int steps = kTile / rows;  // of one tile
  BackwardPlan backward;
  std::vector<StepMasks> step_masks;
  const int32_t num_masks = plan.masks.num_intervals + plan.masks.num_bits;
  step_masks.reserve(num_masks);
  int32_t next_mask = 0;
  for (int32_t id = 0; id < num_masks; ++id) {
    const TileBits tile = tile_bits(plan.masks, id);
    StepMasks& masks = step_masks.emplace_back();
    for (int i = 0; i < steps; ++i) {
      masks.fill[i] = fill_of(tile, i * rows, rows);
      masks.mask[i] = next_mask;
      if (masks.fill[i] != Fill::kPartial) continue;
      for (int first = i * rows; first < (i + 1) * rows; first += 64) append_words(tile, first, backward.masks);
      ++next_mask;
    }
  }

  backward.records.reserve(plan.num_k_tiles);
  for (int32_t k_tile = 0; k_tile < plan.num_k_tiles; ++k_tile) {
    KTileRecord record{
        .k_tile = k_tile, .begin = static_cast<int32_t>(backward.entries.size()), .num_masked = 0, .num_unmasked = 0};
    for (const TileRun& run : by_key.runs(k_tile)) {
      if (run.mask_id == kUnmasked) continue;
      for (int i = 0; i < steps; ++i) {
        if (step_masks[run.mask_id].fill[i] != Fill::kPartial) continue;
        backward.entries.push_back({run.tile * steps + i, step_masks[run.mask_id].mask[i]});
        ++record.num_masked;
      }
    }
    const size_t first_run = backward.entries.size();
    const auto append_run = [&](int32_t first, int32_t count) {
      record.num_unmasked += count;
      if (backward.entries.size() > first_run && backward.entries.back().x + backward.entries.back().y == first) {
        backward.entries.back().y += count;
      } else {
        backward.entries.push_back({first, count});
      }
    };
    for (const TileRun& run : by_key.runs(k_tile)) {
      if (run.mask_id == kUnmasked) {
        append_run(run.tile * steps, run.count * steps);
        continue;
      }
      for (int i = 0; i < steps; ++i) {
        if (step_masks[run.mask_id].fill[i] == Fill::kFull) append_run(run.tile * steps + i, 1);
      }
    }
    backward.records.push_back(record);
  }
  std::stable_sort(backward.records.begin(), backward.records.end(), [](const KTileRecord& a, const KTileRecord& b) {
    return a.num_masked + a.num_unmasked > b.num_masked + b.num_unmasked;
  });
  return backward;
}

}  // namespace attnmux::ffa_sm90
