#include "attnmux/tile_plan.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <string>

#include "../mask/trapezoid.h"
#include "attnmux/error.h"
#include "tile_mask_table.h"

namespace attnmux {
namespace {

// A piece of the mask cut to the rows of one q tile, and the k tiles that it reaches.
struct Strip {
  Trapezoid piece;
  int64_t first;       // [first, last): tiles with at least one pair
  int64_t core_first;  // [core_first, core_last): tiles in which every row of the strip has all keys
  int64_t core_last;
  int64_t last;
  bool is_core(int64_t tile) const { return tile >= core_first && tile < core_last; }
};

class PlanBuilder {
 public:
  PlanBuilder(const AttnMaskSpec& mask, TileShape shape) : slices_(mask.disjoint_slices()), table_(shape) {
    plan_.shape = shape;
    plan_.total_q = mask.total_q();
    plan_.total_k = mask.total_k();
    plan_.area = mask.area();
    plan_.num_q_tiles = static_cast<int32_t>((mask.total_q() + shape.q - 1) / shape.q);
    plan_.num_k_tiles = static_cast<int32_t>((mask.total_k() + shape.k - 1) / shape.k);
  }

  TilePlan build() {
    plan_.run_offsets.reserve(plan_.num_q_tiles + 1);
    plan_.run_offsets.push_back(0);
    for (int32_t tile = 0; tile < plan_.num_q_tiles; ++tile) {
      first_row_ = int64_t{tile} * plan_.shape.q;
      enter_pieces();
      cut_strips();
      walk_strips();
      plan_.run_offsets.push_back(static_cast<int32_t>(plan_.run_list.size()));
    }
    plan_.masks = table_.take();
    for (TileRun& run : plan_.run_list) {
      if (run.mask_id != kUnmasked) run.mask_id = table_.final_id(run.mask_id);
    }
    return std::move(plan_);
  }

 private:
  // Keeps active_ to the pieces that have rows in the tile.
  void enter_pieces() {
    std::erase_if(active_, [&](const Trapezoid& piece) { return piece.q1 <= first_row_; });
    for (; next_slice_ < slices_.size() && slices_[next_slice_].q.begin < first_row_ + plan_.shape.q; ++next_slice_) {
      active_.push_back(*to_trapezoid(slices_[next_slice_]));
    }
  }

  // Sorted by first tile.
  void cut_strips() {
    strips_.clear();
    const int64_t width = plan_.shape.k;
    for (const Trapezoid& piece : active_) {
      Strip strip{.piece = piece, .first = 0, .core_first = 0, .core_last = 0, .last = 0};
      strip.piece.q0 = std::max(piece.q0, first_row_);
      strip.piece.q1 = std::min(piece.q1, first_row_ + plan_.shape.q);
      const Range hull = strip.piece.key_hull();
      strip.first = hull.begin / width;
      strip.core_first = (piece.left.at(strip.piece.q1 - 1) + width - 1) / width;
      strip.core_last = piece.right.at(strip.piece.q0) / width;
      strip.last = (hull.end - 1) / width + 1;
      strips_.push_back(strip);
    }
    const auto earlier = [](const Strip& a, const Strip& b) { return a.first < b.first; };
    if (!std::is_sorted(strips_.begin(), strips_.end(), earlier)) {
      std::sort(strips_.begin(), strips_.end(), earlier);
    }
  }

  // Goes through the k tiles in steps between which the strips that reach them are the same.
  void walk_strips() {
    size_t next = 0;
    int64_t tile = 0;
    members_.clear();
    while (next < strips_.size() || !members_.empty()) {
      if (members_.empty()) tile = strips_[next].first;
      while (next < strips_.size() && strips_[next].first == tile) members_.push_back(strips_[next++]);
      int64_t end = next < strips_.size() ? strips_[next].first : std::numeric_limits<int64_t>::max();
      int64_t whole_rows = 0;
      for (const Strip& strip : members_) {
        end = std::min(end, strip.is_core(tile) ? strip.core_last : tile + 1);
        if (strip.is_core(tile)) whole_rows += strip.piece.height();
      }
      add_tiles(tile, end, whole_rows == plan_.shape.q);
      std::erase_if(members_, [&](const Strip& strip) { return strip.last <= end; });
      tile = end;
    }
  }

  // Tiles [begin, end), all covered alike by members_.
  void add_tiles(int64_t begin, int64_t end, bool whole) {
    int32_t mask_id = TileMaskTable::kWhole;
    if (!whole) {
      covers_.clear();
      for (const Strip& strip : members_) covers_.push_back(strip.piece);
      mask_id = table_.add(first_row_, begin * plan_.shape.k, covers_);
    }
    if (mask_id == TileMaskTable::kWhole) return add_unmasked(begin, end);
    if (std::ssize(plan_.run_list) + (end - begin) > kMaxTileRuns) refuse_size();
    for (int64_t tile = begin; tile < end; ++tile) {
      plan_.run_list.push_back({.tile = static_cast<int32_t>(tile), .count = 1, .mask_id = mask_id});
    }
  }

  void add_unmasked(int64_t begin, int64_t end) {
    const auto count = static_cast<int32_t>(end - begin);
    if (plan_.run_list.size() > static_cast<size_t>(plan_.run_offsets.back())) {
      TileRun& last = plan_.run_list.back();
      if (last.mask_id == kUnmasked && last.tile + last.count == begin) {
        last.count += count;
        return;
      }
    }
    if (std::ssize(plan_.run_list) >= kMaxTileRuns) refuse_size();
    plan_.run_list.push_back({.tile = static_cast<int32_t>(begin), .count = count, .mask_id = kUnmasked});
  }

  [[noreturn]] void refuse_size() const {
    throw Error(ErrorCode::kInvalidArgument, "a tile plan of " + std::to_string(plan_.shape.q) + " x " +
                                                 std::to_string(plan_.shape.k) + " tiles for this mask has more than " +
                                                 std::to_string(kMaxTileRuns) + " runs; use larger tiles");
  }

  const std::vector<AttnSlice>& slices_;
  TileMaskTable table_;
  TilePlan plan_;
  int64_t first_row_ = 0;
  size_t next_slice_ = 0;
  std::vector<Trapezoid> active_;
  std::vector<Strip> strips_;
  std::vector<Strip> members_;
  std::vector<Trapezoid> covers_;
};

void check(TileShape shape) {
  for (const auto& [side, size] : {std::pair{"q", shape.q}, std::pair{"k", shape.k}}) {
    if (size < 16 || size > 1024 || !std::has_single_bit(static_cast<uint32_t>(size))) {
      throw Error(ErrorCode::kInvalidArgument, "tile shape " + std::to_string(shape.q) + " x " +
                                                   std::to_string(shape.k) + ": " + side + " = " +
                                                   std::to_string(size) + " is not a power of two from 16 to 1024");
    }
  }
}

int64_t count_tiles(std::span<const TileRun> runs) {
  int64_t tiles = 0;
  for (const TileRun& run : runs) tiles += run.count;
  return tiles;
}

template <class Plan>
std::vector<int32_t> by_falling_cost(const Plan& plan) {
  std::vector<std::pair<int64_t, int32_t>> order;
  for (size_t i = 0; i + 1 < plan.run_offsets.size(); ++i) {
    const auto tile = static_cast<int32_t>(i);
    order.emplace_back(-plan.tiles(tile), tile);
  }
  std::sort(order.begin(), order.end());
  std::vector<int32_t> tiles;
  tiles.reserve(order.size());
  for (const auto& [cost, tile] : order) tiles.push_back(tile);
  return tiles;
}

}  // namespace

int64_t TilePlan::tiles(int32_t q_tile) const { return count_tiles(runs(q_tile)); }
int64_t TransposedTilePlan::tiles(int32_t k_tile) const { return count_tiles(runs(k_tile)); }

TilePlan make_tile_plan(const AttnMaskSpec& mask, TileShape shape) {
  check(shape);
  return PlanBuilder(mask, shape).build();
}

std::vector<int32_t> longest_first(const TilePlan& plan) { return by_falling_cost(plan); }
std::vector<int32_t> longest_first(const TransposedTilePlan& plan) { return by_falling_cost(plan); }

}  // namespace attnmux
