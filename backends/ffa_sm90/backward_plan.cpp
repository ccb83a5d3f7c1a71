#include "ffa_sm90/backward_plan.h"

#include <algorithm>
#include <bit>

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

// Neighbouring steps that attend a k tile, all wholly or a single one in part.
struct Piece {
  int32_t first;
  int32_t count;
  int32_t mask;  // kUnmasked or an index into the plan's masks
};

void append_pieces(const TileRun& run, const std::vector<StepMasks>& step_masks, int steps,
                   std::vector<Piece>& pieces) {
  const auto append_unmasked = [&](int32_t first, int32_t count) {
    const bool joins =
        !pieces.empty() && pieces.back().mask == kUnmasked && pieces.back().first + pieces.back().count == first;
    if (joins) {
      pieces.back().count += count;
    } else {
      pieces.push_back({first, count, kUnmasked});
    }
  };
  if (run.mask_id == kUnmasked) return append_unmasked(run.tile * steps, run.count * steps);
  const StepMasks& masks = step_masks[run.mask_id];
  for (int i = 0; i < steps; ++i) {
    const int32_t step = run.tile * steps + i;
    if (masks.fill[i] == Fill::kFull) append_unmasked(step, 1);
    if (masks.fill[i] == Fill::kPartial) pieces.push_back({step, 1, masks.mask[i]});
  }
}

void append_record(int32_t k_tile, const std::vector<Piece>& pieces, BackwardPlan& backward) {
  KTileRecord record{.k_tile = k_tile, .begin = static_cast<int32_t>(backward.entries.size())};
  for (const Piece& piece : pieces) {
    if (piece.mask == kUnmasked) continue;
    backward.entries.push_back({piece.first, piece.mask});
    ++record.num_masked;
  }
  for (const Piece& piece : pieces) {
    if (piece.mask != kUnmasked) continue;
    backward.entries.push_back({piece.first, piece.count});
    record.num_unmasked += piece.count;
  }
  backward.records.push_back(record);
}

void append_ordered_record(int32_t k_tile, const std::vector<Piece>& pieces, BackwardPlan& backward) {
  KTileRecord record{.k_tile = k_tile, .begin = static_cast<int32_t>(backward.ordered_entries.size())};
  auto next = pieces.rbegin();
  for (; next != pieces.rend() && next->mask != kUnmasked; ++next) {
    backward.ordered_entries.push_back({next->first, next->mask});
    ++record.num_masked;
  }
  for (auto piece = next; piece != pieces.rend(); ++piece) {
    if (piece->mask != kUnmasked) continue;
    backward.ordered_entries.push_back({piece->first + piece->count - 1, piece->count});
    record.num_unmasked += piece->count;
  }
  for (auto piece = next; piece != pieces.rend(); ++piece) {
    if (piece->mask == kUnmasked) continue;
    backward.ordered_entries.push_back({piece->first, piece->mask});
    ++record.num_masked_behind;
  }
  backward.ordered_records.push_back(record);
}

void append_writers(const TilePlan& plan, const std::vector<StepMasks>& step_masks, int steps, BackwardPlan& backward) {
  backward.writer_begin.reserve(plan.num_q_tiles + 1);
  backward.writers.reserve(plan.run_list.size());
  backward.writer_begin.push_back(0);
  for (int32_t q_tile = 0; q_tile < plan.num_q_tiles; ++q_tile) {
    WriterRun writer{};
    for (const TileRun& run : plan.runs(q_tile)) {
      writer.k_tile = run.tile;
      backward.writers.push_back(writer);
      for (int i = 0; i < steps; ++i) {
        const bool attends = run.mask_id == kUnmasked || step_masks[run.mask_id].fill[i] != Fill::kEmpty;
        writer.before[i] += attends ? run.count : 0;
      }
    }
    backward.writer_begin.push_back(static_cast<int32_t>(backward.writers.size()));
  }
}

// The rows of a q tile that have keys, but at most kScarceKeys.
void append_scarce_rows(const TilePlan& plan, int32_t q_tile, std::vector<ScarceRow>& rows) {
  const std::span<const TileRun> runs = plan.runs(q_tile);
  for (const TileRun& run : runs) {
    if (run.mask_id == kUnmasked) return;
  }
  std::array<int, kTile> keys{};
  for (const TileRun& run : runs) {
    for (int row = 0; row < kTile; ++row) {
      const RowBits bits = row_bits(plan.masks, run.mask_id, row);
      keys[row] += std::popcount(bits[0]) + std::popcount(bits[1]);
    }
    if (std::all_of(keys.begin(), keys.end(), [](int count) { return count > kScarceKeys; })) return;
  }
  for (int row = 0; row < kTile; ++row) {
    if (keys[row] == 0 || keys[row] > kScarceKeys) continue;
    ScarceRow& scarce = rows.emplace_back(ScarceRow{.row = q_tile * kTile + row, .keys = {-1, -1, -1, -1}});
    int32_t* next = scarce.keys;
    for (const TileRun& run : runs) {
      const RowBits bits = row_bits(plan.masks, run.mask_id, row);
      for (int half = 0; half < 2; ++half) {
        for (uint64_t left = bits[half]; left != 0; left &= left - 1) {
          *next++ = run.tile * kTile + half * 64 + std::countr_zero(left);
        }
      }
    }
  }
}

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
  backward.ordered_records.reserve(plan.num_k_tiles);
  std::vector<Piece> pieces;
  for (int32_t k_tile = 0; k_tile < plan.num_k_tiles; ++k_tile) {
    pieces.clear();
    for (const TileRun& run : by_key.runs(k_tile)) append_pieces(run, step_masks, steps, pieces);
    append_record(k_tile, pieces, backward);
    append_ordered_record(k_tile, pieces, backward);
  }
  append_writers(plan, step_masks, steps, backward);
  for (int32_t q_tile = 0; q_tile < plan.num_q_tiles; ++q_tile) {
    append_scarce_rows(plan, q_tile, backward.scarce_rows);
  }
  std::stable_sort(backward.records.begin(), backward.records.end(), [](const KTileRecord& a, const KTileRecord& b) {
    return a.num_masked + a.num_unmasked > b.num_masked + b.num_unmasked;
  });
  return backward;
}

}  // namespace attnmux::ffa_sm90
