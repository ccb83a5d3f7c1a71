// The distinct partial tiles of a plan in the making.
#pragma once

#include <cstdint>
#include <unordered_set>

#include "../mask/trapezoid.h"
#include "attnmux/tile_plan.h"

namespace attnmux {

class TileMaskTable {
 public:
  explicit TileMaskTable(TileShape shape);

  // What `add` found instead of a partial tile.
  static constexpr int32_t kWhole = -1;

  // The tile whose first row and key are given, covered by disjoint trapezoids of which no two touch on a row. Returns
  // a provisional id: equal tiles get equal ids.
  int32_t add(int64_t first_row, int64_t first_key, const std::vector<Trapezoid>& covers);

  // The masks, moved out; nothing may be added behind it.
  TileMasks take();

  // What an id from `add` is in the masks taken. REQUIRES: take() was called.
  int32_t final_id(int32_t id) const { return id <= kFirstBits ? kFirstBits - id + num_intervals_ : id; }

 private:
  // Provisional ids: intervals count up from 0, bit tiles count down from here.
  static constexpr int32_t kFirstBits = -2;

  // Content of one kind of tile: `width` values each, compared and hashed in place.
  template <class Value>
  class Pool {
   public:
    explicit Pool(size_t width);
    // Space for one more tile, zeroed.
    Value* open();
    // Keeps the opened tile unless an equal one is there; returns the index of the one that stays.
    int32_t close();
    std::vector<Value> values;

   private:
    struct Hash {
      const Pool* pool;
      size_t operator()(int32_t index) const;
    };
    struct Equal {
      const Pool* pool;
      bool operator()(int32_t a, int32_t b) const;
    };
    size_t width_;
    std::unordered_set<int32_t, Hash, Equal> index_;
  };

  int32_t add_bits(int64_t first_row, int64_t first_key, const std::vector<Trapezoid>& covers);
  void check_size() const;

  TileShape shape_;
  Pool<RowInterval> intervals_;
  Pool<uint64_t> bits_;
  int32_t num_intervals_ = 0;
};

}  // namespace attnmux
