#include "tile_mask_table.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

#include "attnmux/error.h"

namespace attnmux {
namespace {

constexpr size_t kMaxBytes = size_t{2} << 30;

size_t words_per_row(TileShape shape) { return shape.k >= 64 ? shape.k / 64 : 1; }

// The part of a trapezoid's row that lies in the tile, relative to the tile; begin >= end where there is none.
RowInterval clip(Range keys, int64_t first_key, int64_t width) {
  return {static_cast<int16_t>(std::clamp<int64_t>(keys.begin - first_key, 0, width)),
          static_cast<int16_t>(std::clamp<int64_t>(keys.end - first_key, 0, width))};
}

void set_bits(uint64_t* row, RowInterval interval) {
  for (int word = interval.begin / 64; word * 64 < interval.end; ++word) {
    const int begin = std::max(interval.begin - word * 64, 0);
    const int end = std::min(interval.end - word * 64, 64);
    row[word] |= (~uint64_t{0} >> (64 - (end - begin))) << begin;
  }
}

}  // namespace

template <class Value>
TileMaskTable::Pool<Value>::Pool(size_t width) : width_(width), index_(64, Hash{this}, Equal{this}) {}

template <class Value>
Value* TileMaskTable::Pool<Value>::open() {
  values.resize(values.size() + width_);
  return values.data() + values.size() - width_;
}

template <class Value>
int32_t TileMaskTable::Pool<Value>::close() {
  const auto [place, inserted] = index_.insert(static_cast<int32_t>(values.size() / width_ - 1));
  if (!inserted) values.resize(values.size() - width_);
  return *place;
}

template <class Value>
size_t TileMaskTable::Pool<Value>::Hash::operator()(int32_t index) const {
  // Quick rather than good: equality is decided on the content. Rows are a multiple of 16, so whole words.
  const auto* bytes = reinterpret_cast<const char*>(pool->values.data() + index * pool->width_);
  uint64_t hash = 0;
  for (size_t i = 0; i < pool->width_ * sizeof(Value); i += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, bytes + i, sizeof word);
    hash = (std::rotl(hash, 5) ^ word) * 0x9e3779b97f4a7c15u;
  }
  return hash ^ (hash >> 32);
}

template <class Value>
bool TileMaskTable::Pool<Value>::Equal::operator()(int32_t a, int32_t b) const {
  return std::memcmp(pool->values.data() + a * pool->width_, pool->values.data() + b * pool->width_,
                     pool->width_ * sizeof(Value)) == 0;
}

TileMaskTable::TileMaskTable(TileShape shape)
    : shape_(shape), intervals_(shape.q), bits_(shape.q * words_per_row(shape)) {}

int32_t TileMaskTable::add(int64_t first_row, int64_t first_key, const std::vector<Trapezoid>& covers) {
  RowInterval* rows = intervals_.open();
  int64_t attended = 0;
  bool one_interval_per_row = true;
  for (const Trapezoid& cover : covers) {
    for (int64_t row = cover.q0; row < cover.q1; ++row) {
      const RowInterval interval = clip(cover.keys(row), first_key, shape_.k);
      if (interval.begin >= interval.end) continue;
      attended += interval.end - interval.begin;
      one_interval_per_row = one_interval_per_row && rows[row - first_row].end == 0;
      rows[row - first_row] = interval;
    }
  }
  if (attended < int64_t{shape_.q} * shape_.k && one_interval_per_row) {
    const int32_t id = intervals_.close();
    check_size();
    return id;
  }
  intervals_.values.resize(intervals_.values.size() - shape_.q);
  return one_interval_per_row ? kWhole : add_bits(first_row, first_key, covers);
}

int32_t TileMaskTable::add_bits(int64_t first_row, int64_t first_key, const std::vector<Trapezoid>& covers) {
  uint64_t* words = bits_.open();
  for (const Trapezoid& cover : covers) {
    for (int64_t row = cover.q0; row < cover.q1; ++row) {
      const RowInterval interval = clip(cover.keys(row), first_key, shape_.k);
      if (interval.begin < interval.end) set_bits(words + (row - first_row) * words_per_row(shape_), interval);
    }
  }
  const int32_t id = kFirstBits - bits_.close();
  check_size();
  return id;
}

void TileMaskTable::check_size() const {
  const size_t bytes = intervals_.values.size() * sizeof(RowInterval) + bits_.values.size() * sizeof(uint64_t);
  if (bytes <= kMaxBytes) return;
  throw Error(ErrorCode::kInvalidArgument, "the mask has more than 2 GiB of distinct partial tiles of " +
                                               std::to_string(shape_.q) + " x " + std::to_string(shape_.k) +
                                               "; it is no mask to run a tiled kernel on");
}

TileMasks TileMaskTable::take() {
  num_intervals_ = static_cast<int32_t>(intervals_.values.size() / shape_.q);
  TileMasks masks{.shape = shape_,
                  .num_intervals = num_intervals_,
                  .num_bits = static_cast<int32_t>(bits_.values.size() / (shape_.q * words_per_row(shape_))),
                  .intervals = std::move(intervals_.values),
                  .bits = std::move(bits_.values)};
  return masks;
}

}  // namespace attnmux
