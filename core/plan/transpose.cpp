// Runs of unmasked tiles are transposed without going through their tiles: from one q tile to the next only those k
// tiles matter that begin or cease to be unmasked, and each of them begins or ends a run of the result.
#include <string>

#include "attnmux/error.h"
#include "attnmux/tile_plan.h"

namespace attnmux {
namespace {

class Transposer {
 public:
  explicit Transposer(const TilePlan& plan) : plan_(plan), unmasked_since_(plan.num_k_tiles, 0) {}

  TransposedTilePlan transpose() {
    std::span<const TileRun> above;
    for (int32_t q_tile = 0; q_tile <= plan_.num_q_tiles; ++q_tile) {
      const std::span<const TileRun> runs =
          q_tile < plan_.num_q_tiles ? plan_.runs(q_tile) : std::span<const TileRun>();
      // What ended above comes before the partial tiles of this row: every k tile's list is filled from top to bottom.
      for_each_missing(above, runs, [&](int32_t k_tile) {
        const int32_t first = unmasked_since_[k_tile];
        add(k_tile, {.tile = first, .count = q_tile - first, .mask_id = kUnmasked});
      });
      for_each_missing(runs, above, [&](int32_t k_tile) { unmasked_since_[k_tile] = q_tile; });
      for (const TileRun& run : runs) {
        if (run.mask_id != kUnmasked) add(run.tile, {.tile = q_tile, .count = 1, .mask_id = run.mask_id});
      }
      above = runs;
    }
    return sort_by_k_tile();
  }

 private:
  struct Found {
    int32_t k_tile;
    TileRun run;
  };

  void add(int32_t k_tile, TileRun run) {
    if (std::ssize(found_) >= kMaxTileRuns) {
      throw Error(ErrorCode::kInvalidArgument,
                  "the transposed tile plan has more than " + std::to_string(kMaxTileRuns) + " runs; use larger tiles");
    }
    found_.push_back({k_tile, run});
  }

  // Calls visit for each tile that is unmasked in `in` and not in `out`.
  template <class Visit>
  static void for_each_missing(std::span<const TileRun> in, std::span<const TileRun> out, Visit visit) {
    size_t o = 0;
    for (const TileRun& run : in) {
      if (run.mask_id != kUnmasked) continue;
      for (int32_t tile = run.tile; tile < run.tile + run.count;) {
        while (o < out.size() && (out[o].mask_id != kUnmasked || out[o].tile + out[o].count <= tile)) ++o;
        if (o < out.size() && out[o].tile <= tile) {
          tile = out[o].tile + out[o].count;
        } else {
          visit(tile++);
        }
      }
    }
  }

  TransposedTilePlan sort_by_k_tile() const {
    TransposedTilePlan result;
    result.run_offsets.assign(plan_.num_k_tiles + 1, 0);
    for (const Found& found : found_) ++result.run_offsets[found.k_tile + 1];
    for (int32_t i = 0; i < plan_.num_k_tiles; ++i) result.run_offsets[i + 1] += result.run_offsets[i];
    std::vector<int32_t> place(result.run_offsets.begin(), result.run_offsets.end() - 1);
    result.run_list.resize(found_.size());
    for (const Found& found : found_) result.run_list[place[found.k_tile]++] = found.run;
    return result;
  }

  const TilePlan& plan_;
  std::vector<int32_t> unmasked_since_;
  std::vector<Found> found_;
};

}  // namespace

TransposedTilePlan transpose(const TilePlan& plan) { return Transposer(plan).transpose(); }

}  // namespace attnmux
