#include "attnmux/mask.h"

#include <algorithm>
#include <limits>

#include "area_index.h"
#include "attnmux/error.h"
#include "disjoint.h"
#include "overlaps.h"
#include "row_index.h"
#include "trapezoid.h"

namespace attnmux {
namespace {

constexpr int64_t kMaxTotal = std::numeric_limits<int32_t>::max();

std::string text(Range range) {
  std::string text = "[";
  text += std::to_string(range.begin) + ", " + std::to_string(range.end) + ")";
  return text;
}

// What is wrong with one side of a slice; empty where nothing is.
std::string complaint(const char* side, Range range, int64_t total) {
  if (range.begin > range.end) return std::string(side) + " = " + text(range) + " is inverted";
  if (range.begin < 0 || range.end > total) {
    return std::string(side) + " = " + text(range) + " is outside " + text({0, total});
  }
  return {};
}

void check(const std::vector<AttnSlice>& slices, int64_t total_q, int64_t total_k) {
  for (const auto& [name, total] : {std::pair{"total_q", total_q}, std::pair{"total_k", total_k}}) {
    if (total < 0 || total > kMaxTotal) {
      throw Error(ErrorCode::kInvalidArgument, std::string(name) + " = " + std::to_string(total) +
                                                   " is outside [0, 2147483647], the token counts a mask can have");
    }
  }
  constexpr size_t kMostNamed = 8;
  size_t wrong = 0;
  std::string named;
  for (size_t i = 0; i < slices.size(); ++i) {
    for (const std::string& problem :
         {complaint("q", slices[i].q, total_q), complaint("k", slices[i].k, total_k),
          static_cast<unsigned>(slices[i].type) > 3
              ? "type " + std::to_string(static_cast<unsigned>(slices[i].type)) + " is not in 0..3"
              : std::string()}) {
      if (problem.empty()) continue;
      if (++wrong <= kMostNamed) named += "\n  slice " + std::to_string(i) + ": " + problem;
    }
  }
  if (wrong == 0) return;
  if (wrong > kMostNamed) named += "\n  and " + std::to_string(wrong - kMostNamed) + " more";
  throw Error(ErrorCode::kInvalidArgument, "a mask over total_q = " + std::to_string(total_q) +
                                               " and total_k = " + std::to_string(total_k) +
                                               " takes ranges begin <= end inside [0, total):" + named);
}

Hash128 hash_of(const std::vector<AttnSlice>& slices, int64_t total_q, int64_t total_k) {
  Hasher hasher;
  hasher.add(total_q);
  hasher.add(total_k);
  for (const AttnSlice& slice : slices) {
    for (const int64_t value : {slice.q.begin, slice.q.end, slice.k.begin, slice.k.end}) hasher.add(value);
    hasher.add(slice.type);
  }
  return hasher.finish();
}

std::vector<AttnSlice> to_slices(const std::vector<Trapezoid>& pieces) {
  std::vector<AttnSlice> slices;
  slices.reserve(pieces.size());
  for (const Trapezoid& piece : pieces) slices.push_back(to_slice(piece));
  return slices;
}

}  // namespace

Range keys_of_row(const AttnSlice& slice, int64_t row) {
  const std::optional<Trapezoid> trapezoid = to_trapezoid(slice);
  if (!trapezoid || row < trapezoid->q0 || row >= trapezoid->q1) return {};
  return trapezoid->keys(row);
}

int64_t area(const AttnSlice& slice) {
  for (const auto& [side, range] : {std::pair{"q", slice.q}, std::pair{"k", slice.k}}) {
    int64_t size = 0;
    if (__builtin_sub_overflow(range.end, range.begin, &size) || size > kMaxTotal) {
      throw Error(ErrorCode::kInvalidArgument, std::string(side) + " = " + text(range) +
                                                   " has 2^31 or more tokens; the area of such a slice is not counted");
    }
  }
  // Moved to the origin, where no edge can overflow.
  const std::optional<Trapezoid> trapezoid =
      to_trapezoid({.q = {0, slice.q.size()}, .k = {0, slice.k.size()}, .type = slice.type});
  return trapezoid ? area(*trapezoid) : 0;
}

struct AttnMaskSpec::State {
  State(std::vector<AttnSlice> slices, int64_t total_q, int64_t total_k)
      : slices(std::move(slices)),
        total_q(total_q),
        total_k(total_k),
        pieces(disjoint_trapezoids(this->slices)),
        disjoint(to_slices(pieces)),
        hash(hash_of(disjoint, total_q, total_k)),
        areas(pieces),
        rows(pieces) {}

  std::vector<AttnSlice> slices;
  int64_t total_q;
  int64_t total_k;
  std::vector<Trapezoid> pieces;
  std::vector<AttnSlice> disjoint;  // the pieces again, as slices
  Hash128 hash;
  AreaIndex areas;
  RowIndex rows;
};

AttnMaskSpec::AttnMaskSpec(std::vector<AttnSlice> slices, int64_t total_q, int64_t total_k) {
  check(slices, total_q, total_k);
  std::erase_if(slices, [](const AttnSlice& slice) { return slice.q.empty() || slice.k.empty(); });
  state_ = std::make_shared<const State>(std::move(slices), total_q, total_k);
}

int64_t AttnMaskSpec::total_q() const { return state_->total_q; }
int64_t AttnMaskSpec::total_k() const { return state_->total_k; }
const std::vector<AttnSlice>& AttnMaskSpec::slices() const { return state_->slices; }
const std::vector<AttnSlice>& AttnMaskSpec::disjoint_slices() const { return state_->disjoint; }
Hash128 AttnMaskSpec::hash() const { return state_->hash; }
int64_t AttnMaskSpec::area() const { return state_->areas.area({0, state_->total_q}); }

int64_t AttnMaskSpec::area(Range rows) const {
  if (rows.begin < 0 || rows.end < rows.begin || rows.end > state_->total_q) {
    throw Error(ErrorCode::kInvalidArgument,
                "rows " + text(rows) + " are not a range of the mask's queries " + text({0, state_->total_q}));
  }
  return state_->areas.area(rows);
}

bool AttnMaskSpec::allowed(int64_t q, int64_t k) const {
  bool found = false;
  state_->rows.for_each(state_->pieces, q, [&](size_t i) {
    const Range keys = state_->pieces[i].keys(q);
    found = found || (k >= keys.begin && k < keys.end);
  });
  return found;
}

std::vector<Range> AttnMaskSpec::keys_of_row(int64_t row) const {
  std::vector<Range> keys;
  state_->rows.for_each(state_->pieces, row, [&](size_t i) { keys.push_back(state_->pieces[i].keys(row)); });
  std::sort(keys.begin(), keys.end(), [](Range a, Range b) { return a.begin < b.begin; });
  return keys;
}

std::vector<std::string> AttnMaskSpec::overlaps(size_t limit) const {
  std::vector<std::string> lines;
  int64_t sum = 0;
  for (const AttnSlice& slice : state_->slices) {
    if (__builtin_add_overflow(sum, attnmux::area(slice), &sum)) sum = std::numeric_limits<int64_t>::max();
    if (sum == std::numeric_limits<int64_t>::max()) break;
  }
  if (sum == area()) return lines;
  for (const auto& [a, b] : overlapping_pairs(state_->slices, limit)) {
    const AttnSlice& first = state_->slices[a];
    const AttnSlice& second = state_->slices[b];
    lines.push_back("slices " + std::to_string(a) + " (q = " + text(first.q) + ", k = " + text(first.k) + ") and " +
                    std::to_string(b) + " (q = " + text(second.q) + ", k = " + text(second.k) + ") overlap");
  }
  return lines;
}

}  // namespace attnmux
