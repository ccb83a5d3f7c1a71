#include "ffa_sm90/forward_plan.h"

#include <algorithm>
#include <array>
#include <limits>
#include <map>

#include "ffa_sm90/mask_bits.h"

namespace attnmux::ffa_sm90 {
namespace {

constexpr int kMaxStrips = 3;
constexpr int32_t kNothing = -2;  // beside mask ids and kUnmasked: no attended pair
constexpr int32_t kNever = std::numeric_limits<int32_t>::max();

// What the strips of a q tile make of one k tile: a mask id, kUnmasked or kNothing each.
using StripMasks = std::array<int32_t, kMaxStrips>;

// Every fourth pair of bits, from pair `quad` on, of 128: what a lane of a quad holds of one row.
uint32_t quad_bits(const RowBits& row, int quad) {
  uint32_t word = 0;
  for (int j = 0; j < 16; ++j) {
    word |= static_cast<uint32_t>(row[j / 8] >> (8 * (j % 8) + 2 * quad) & 3) << (2 * j);
  }
  return word;
}

void append_words(const TileMasks& masks, int32_t id, std::vector<uint32_t>& words) {
  const size_t begin = words.size();
  words.resize(begin + kStripMaskWords, id == kUnmasked ? ~uint32_t{0} : 0);
  if (id < 0) return;
  for (int row = 0; row < kStrip; ++row) {
    const RowBits bits = row_bits(masks, id, row);
    const int warp = row / 16, half = row % 16 / 8;
    for (int quad = 0; quad < 4; ++quad) {
      const int thread = warp * 32 + row % 8 * 4 + quad;
      words[begin + thread * 2 + half] = quad_bits(bits, quad);
    }
  }
}

class Builder {
 public:
  Builder(const TilePlan& plan, int strips) : plan_(plan), strips_(strips) {}

  ForwardPlan build() {
    const int32_t q_tiles = (plan_.num_q_tiles + strips_ - 1) / strips_;
    forward_.records.reserve(q_tiles);
    forward_.entries.reserve(plan_.run_list.size());
    for (int32_t q_tile = 0; q_tile < q_tiles; ++q_tile) append(q_tile);
    std::stable_sort(forward_.records.begin(), forward_.records.end(), [](const QTileRecord& a, const QTileRecord& b) {
      return a.num_masked + a.num_unmasked > b.num_masked + b.num_unmasked;
    });
    return std::move(forward_);
  }

 private:
  void append(int32_t q_tile) {
    std::array<const TileRun*, kMaxStrips> run{}, end{};  // of each strip, its runs that are not behind us
    int inside = 0;
    for (; inside < strips_ && q_tile * strips_ + inside < plan_.num_q_tiles; ++inside) {
      const std::span<const TileRun> runs = plan_.runs(q_tile * strips_ + inside);
      run[inside] = runs.data();
      end[inside] = runs.data() + runs.size();
    }
    QTileRecord record{
        .q_tile = q_tile, .begin = static_cast<int32_t>(forward_.entries.size()), .num_masked = 0, .num_unmasked = 0};
    unmasked_.clear();
    for (int32_t at = 0;;) {
      int32_t tile = kNever;  // the first from `at` on that a strip attends
      for (int i = 0; i < inside; ++i) {
        while (run[i] != end[i] && run[i]->tile + run[i]->count <= at) ++run[i];
        if (run[i] != end[i]) tile = std::min(tile, std::max(run[i]->tile, at));
      }
      if (tile == kNever) break;
      int32_t changes = kNever;  // all strips do the same up to here
      StripMasks masks;
      masks.fill(kUnmasked);  // strips beyond the last query do as the others
      for (int i = 0; i < inside; ++i) {
        const bool attends = run[i] != end[i] && run[i]->tile <= tile;
        masks[i] = attends ? run[i]->mask_id : kNothing;
        if (run[i] != end[i]) changes = std::min(changes, attends ? run[i]->tile + run[i]->count : run[i]->tile);
      }
      if (std::all_of(masks.begin(), masks.end(), [](int32_t id) { return id == kUnmasked; })) {
        unmasked_.push_back({tile, changes - tile});
        record.num_unmasked += changes - tile;
      } else {
        for (int32_t t = tile; t < changes; ++t) forward_.entries.push_back({t, mask_of(masks)});
        record.num_masked += changes - tile;
      }
      at = changes;
    }
    forward_.entries.insert(forward_.entries.end(), unmasked_.begin(), unmasked_.end());
    forward_.records.push_back(record);
  }

  int32_t mask_of(const StripMasks& masks) {
    const auto [found, fresh] = mask_index_.try_emplace(masks, static_cast<int32_t>(mask_index_.size()));
    if (fresh) {
      for (int i = 0; i < strips_; ++i) append_words(plan_.masks, masks[i], forward_.masks);
    }
    return found->second;
  }

  const TilePlan& plan_;
  const int strips_;
  ForwardPlan forward_;
  std::vector<int2> unmasked_;
  std::map<StripMasks, int32_t> mask_index_;
};

}  // namespace

ForwardPlan make_forward_plan(const TilePlan& plan, int strips) { return Builder(plan, strips).build(); }

}  // namespace attnmux::ffa_sm90
