// The part of a tile that one panel of queries attends, and the masking of scores inside that part.
//
// A panel is kPanel neighbouring rows of a tile. Its softmax is narrowed to the box [row_begin, row_end) x
// [key_begin, key_end) that holds every attended pair of the panel, in whole register blocks; inside it, pairs that are
// not attended get the score that the caller names, unless the box is attended as a whole.
#pragma once

#include "simd.h"

namespace attnmux::tiled_cpu {
namespace ATTNMUX_ISA {

struct Cover {
  int32_t key_begin = 0;
  int32_t key_end = 0;  // key_end == key_begin: nothing attended
  int32_t row_begin = 0;
  int32_t row_end = 0;
  bool partial = false;
  bool empty() const { return key_end == key_begin; }
};

constexpr int32_t kWordsPerRow = kKTile / 64;

inline const RowInterval* interval_rows(const PlanView& plan, int32_t mask_id) {
  return plan.intervals + int64_t{mask_id} * kQTile;
}
inline const uint64_t* bit_rows(const PlanView& plan, int32_t mask_id) {
  return plan.bits + int64_t{mask_id - plan.num_intervals} * kQTile * kWordsPerRow;
}

inline Cover cover_of_intervals(const RowInterval* rows, int32_t count) {
  Cover cover;
  int32_t last_begin = 0, first_end = 0;  // of the intersection
  for (int32_t r = 0; r < count; ++r) {
    const int32_t begin = rows[r].begin, end = rows[r].end;
    if (begin >= end) continue;
    if (cover.empty()) {
      cover = {.key_begin = begin, .key_end = end, .row_begin = r, .row_end = r + 1};
      last_begin = begin;
      first_end = end;
      continue;
    }
    cover.partial |= r != cover.row_end;  // a row without keys between two with keys
    cover.row_end = r + 1;
    cover.key_begin = begin < cover.key_begin ? begin : cover.key_begin;
    cover.key_end = end > cover.key_end ? end : cover.key_end;
    last_begin = begin > last_begin ? begin : last_begin;
    first_end = end < first_end ? end : first_end;
  }
  // A row outside shares vectors with rows inside.
  cover.partial |= cover.row_begin > 0 || cover.row_end < count;
  cover.partial |= last_begin != cover.key_begin || first_end != cover.key_end;
  return cover;
}

inline Cover cover_of_bits(const uint64_t* words, int32_t count) {
  Cover cover;
  uint64_t any[kWordsPerRow] = {};
  for (int32_t r = 0; r < count; ++r) {
    uint64_t row = 0;
    for (int32_t w = 0; w < kWordsPerRow; ++w) {
      row |= words[r * kWordsPerRow + w];
      any[w] |= words[r * kWordsPerRow + w];
    }
    if (row == 0) continue;
    if (cover.row_end == 0) cover.row_begin = r;
    cover.row_end = r + 1;
  }
  if (cover.row_end == 0) return cover;
  int32_t first = 0, last = kWordsPerRow - 1;
  while (any[first] == 0) ++first;
  while (any[last] == 0) --last;
  cover.key_begin = first * 64 + __builtin_ctzll(any[first]);
  cover.key_end = last * 64 + 64 - __builtin_clzll(any[last]);
  cover.partial = true;
  return cover;
}

// The smallest box around a cover with sides that are multiples of `unit`, a power of two.
inline Cover widen(Cover cover, int32_t unit) {
  const Cover exact = cover;
  cover.key_begin &= -unit;
  cover.key_end = (cover.key_end + unit - 1) & -unit;
  cover.row_begin &= -unit;
  cover.row_end = (cover.row_end + unit - 1) & -unit;
  cover.partial |= cover.key_begin != exact.key_begin || cover.key_end != exact.key_end;
  // Where only rows are gained, the cover is partial already, or they lie behind the last query: their results are not
  // used, and in the backward their probabilities are 0.
  return cover;
}

// Rows [row, row + count) of a tile.
inline Cover cover_of(const PlanView& plan, int32_t mask_id, int32_t row, int32_t count) {
  if (mask_id == kUnmasked) return {.key_begin = 0, .key_end = kKTile, .row_begin = 0, .row_end = count};
  if (mask_id < plan.num_intervals) return cover_of_intervals(interval_rows(plan, mask_id) + row, count);
  return cover_of_bits(bit_rows(plan, mask_id) + row * kWordsPerRow, count);
}

struct Range {
  int32_t begin = 0;
  int32_t end = 0;
  bool operator==(const Range& other) const { return begin == other.begin && end == other.end; }
};

// A panel's box in whole register blocks, and the keys that each kGemmRows rows of it attend, likewise.
template <class T>
struct PanelCover : Cover {
  Range keys[kPanel<T> / kGemmRows];

  // The rows that attend keys [key, key + kGemmRows), from the first to the last, in whole blocks.
  Range rows_of(int32_t key) const {
    Range rows;
    for (int32_t row = row_begin; row < row_end; row += kGemmRows) {
      const Range& own = keys[row / kGemmRows];
      if (key < own.begin || key >= own.end) continue;
      if (rows.end == 0) rows.begin = row;
      rows.end = row + kGemmRows;
    }
    return rows;
  }
};

// Covers of all panels of a tile with `rows` queries.
template <class T>
inline void cover_panels(const PlanView& plan, int32_t mask_id, int32_t rows, PanelCover<T>* covers) {
  for (int32_t row = 0; row < rows; row += kPanel<T>) {
    const int32_t count = static_cast<int32_t>(smaller(kPanel<T>, rows - row));
    PanelCover<T>& cover = covers[row / kPanel<T>];
    static_cast<Cover&>(cover) = widen(cover_of(plan, mask_id, row, count), kGemmRows);
    for (int32_t first = 0; first < kPanel<T>; first += kGemmRows) {
      const int32_t block_rows = static_cast<int32_t>(larger(0, smaller(kGemmRows, count - first)));
      const Cover block = widen(cover_of(plan, mask_id, row + first, block_rows), kGemmRows);
      cover.keys[first / kGemmRows] = {.begin = block.key_begin, .end = block.key_end};
    }
  }
}

// scores [keys of the cover, kPanel]: `masked` where the panel that starts at `row` does not attend the key. Vectors of
// queries [column, column_end) only.
template <class T>
inline void mask_scores(const PlanView& plan, int32_t mask_id, int32_t row, const Cover& cover, int32_t column,
                        int32_t column_end, T masked, T* scores) {
  using Int = typename SimdTypes<T>::Int;
  using IntScalar = typename SimdTypes<T>::IntScalar;
  for (; column < column_end; column += kWidth<T>) {
    T* s = scores + column;
    if (mask_id < plan.num_intervals) {
      const RowInterval* rows = interval_rows(plan, mask_id) + row + column;
      Int begin, end;
      for (int i = 0; i < kWidth<T>; ++i) {
        begin[i] = rows[i].begin;
        end[i] = rows[i].end;
      }
      for (IntScalar key = cover.key_begin; key < cover.key_end; ++key, s += kPanel<T>) {
        const auto attended = (begin <= key) & (end > key);
        store(s, attended ? load(s) : splat(masked));
      }
    } else {
      const uint64_t* words = bit_rows(plan, mask_id) + (row + column) * kWordsPerRow;
      Int word{};
      for (int32_t key = cover.key_begin; key < cover.key_end; ++key, s += kPanel<T>) {
        if (key == cover.key_begin || key % 32 == 0) {  // 32 keys of each row in one lane, the next key in bit 0
          for (int i = 0; i < kWidth<T>; ++i)
            word[i] = static_cast<IntScalar>(
                static_cast<uint32_t>(words[i * kWordsPerRow + key / 64] >> key % 64 & (0xffffffffu >> key % 32)));
        }
        const auto attended = (word & 1) != 0;
        store(s, attended ? load(s) : splat(masked));
        word >>= 1;
      }
    }
  }
}

}  // namespace ATTNMUX_ISA
}  // namespace attnmux::tiled_cpu
