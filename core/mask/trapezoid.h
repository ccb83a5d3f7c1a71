// The form in which mask code computes: rows [q0, q1), each with at least one key, between two edges that either stay
// or move one key a row. Every typed slice is one such trapezoid once its rows without keys are dropped, every
// trapezoid is one typed slice, and cutting one by rows gives two.
#pragma once

#include <optional>

#include "attnmux/mask.h"

namespace attnmux {

struct Edge {
  int64_t offset = 0;  // key at row 0
  bool moving = false;
  int64_t at(int64_t row) const { return moving ? offset + row : offset; }
  static Edge through(int64_t row, int64_t key, bool moving) { return {moving ? key - row : key, moving}; }
  friend bool operator==(const Edge&, const Edge&) = default;
};

struct Trapezoid {
  int64_t q0 = 0;
  int64_t q1 = 0;
  Edge left;
  Edge right;  // exclusive

  int64_t height() const { return q1 - q0; }
  Range keys(int64_t row) const { return {left.at(row), right.at(row)}; }
  // Smallest and one past the largest key of all rows.
  Range key_hull() const { return {left.at(q0), right.at(q1 - 1)}; }
};

// Nothing where no row of the slice has a key. REQUIRES: ranges not inverted.
std::optional<Trapezoid> to_trapezoid(const AttnSlice& slice);

AttnSlice to_slice(const Trapezoid& trapezoid);

// Attended pairs. REQUIRES: sides below 2^31.
int64_t area(const Trapezoid& trapezoid);

}  // namespace attnmux
