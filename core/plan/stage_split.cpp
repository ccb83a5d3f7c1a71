#include "stage_split.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "attnmux/error.h"
#include "attnmux/ranges.h"

namespace attnmux {
namespace {

constexpr double kMostGrowth = 8;
constexpr double kMostDoublings = 32;  // from the smallest stage to the largest
constexpr int64_t kBands = 8;          // even: each band that is dealt forwards has one that is dealt backwards

// Keys of one owner, next to each other.
struct Piece {
  Range tokens;
  int32_t distance = 0;  // from the owner up to the rank that asks, around the ring: 1 to ranks - 1
};

std::vector<Piece> pieces_of(const std::vector<Range>& keys, const std::vector<OwnedRange>& owners, int32_t rank,
                             int32_t ranks) {
  std::vector<Piece> pieces;
  auto owner = owners.begin();
  for (const Range& range : keys) {
    owner = std::partition_point(owner, owners.end(), [&](const OwnedRange& o) { return o.tokens.end <= range.begin; });
    for (auto at = owner; at != owners.end() && at->tokens.begin < range.end; ++at) {
      pieces.push_back({{std::max(range.begin, at->tokens.begin), std::min(range.end, at->tokens.end)},
                        (rank - at->rank + ranks) % ranks});
    }
  }
  return pieces;
}

// The pieces by distance; of one owner the first, the last, the second, the last but one, and so on.
std::vector<size_t> order_of(const std::vector<Piece>& pieces, int32_t ranks) {
  std::vector<size_t> begins(ranks + 1, 0);
  for (const Piece& piece : pieces) ++begins[piece.distance + 1];
  for (int32_t distance = 0; distance < ranks; ++distance) begins[distance + 1] += begins[distance];
  std::vector<size_t> by_distance(pieces.size()), next = begins;
  for (size_t i = 0; i < pieces.size(); ++i) by_distance[next[pieces[i].distance]++] = i;
  std::vector<size_t> order;
  order.reserve(pieces.size());
  for (int32_t distance = 0; distance < ranks; ++distance) {
    for (size_t first = begins[distance], last = begins[distance + 1]; first < last;) {
      order.push_back(by_distance[first++]);
      if (first < last) order.push_back(by_distance[--last]);
    }
  }
  return order;
}

void append(Range tokens, std::vector<Range>* part) {
  if (!part->empty() && part->back().end == tokens.begin) {
    part->back().end = tokens.end;
  } else {
    part->push_back(tokens);
  }
}

}  // namespace

void check(const StageOptions& options) {
  const auto refuse = [](const std::string& what) { throw Error(ErrorCode::kInvalidArgument, what); };
  if (options.stages < 1 || options.stages > kMostStages) {
    refuse("stages = " + std::to_string(options.stages) + " is outside [1, " + std::to_string(kMostStages) + "]");
  }
  if (!(options.growth >= 1 / kMostGrowth && options.growth <= kMostGrowth)) {
    refuse("growth = " + std::to_string(options.growth) + " of stages is outside [1/8, 8]");
  }
  if (std::abs(std::log2(options.growth)) * static_cast<double>(options.stages - 1) > kMostDoublings) {
    refuse(std::to_string(options.stages) + " stages with a growth of " + std::to_string(options.growth) +
           ": the largest would have 2^" + std::to_string(static_cast<int>(kMostDoublings)) +
           " times the tokens of the smallest or more; take fewer stages");
  }
}

std::vector<double> ends_of_stages(const StageOptions& options) {
  std::vector<double> ends(options.stages);
  double sum = 0, share = 1;
  for (double& end : ends) {
    end = sum += share;
    share *= options.growth;
  }
  for (double& end : ends) end /= sum;
  return ends;
}

std::vector<std::vector<Range>> spread_over_stages(const std::vector<Range>& keys,
                                                   const std::vector<OwnedRange>& owners, int32_t rank, int32_t ranks,
                                                   const std::vector<double>& ends) {
  if (ends.size() == 1) return {keys};
  const auto tokens = static_cast<double>(count_tokens(keys));
  const auto end_of = [&](size_t stage) { return std::llround(tokens * ends[stage]); };
  const std::vector<Piece> pieces = pieces_of(keys, owners, rank, ranks);
  // In that order: which stage a piece begins in, and how many of its tokens fit into that.
  struct Place {
    size_t stage = 0;
    int64_t room = 0;
  };
  std::vector<Place> places(pieces.size());
  size_t stage = 0;
  int64_t dealt = 0;
  for (const size_t i : order_of(pieces, ranks)) {
    while (end_of(stage) <= dealt) ++stage;
    places[i] = {stage, end_of(stage) - dealt};
    dealt += pieces[i].tokens.size();
  }
  std::vector<std::vector<Range>> parts(ends.size());
  for (size_t i = 0; i < pieces.size(); ++i) {
    Range rest = pieces[i].tokens;
    for (Place at = places[i]; !rest.empty(); at = {at.stage + 1, end_of(at.stage + 1) - end_of(at.stage)}) {
      const int64_t end = std::min(rest.end, rest.begin + at.room);
      if (end > rest.begin) append({rest.begin, end}, &parts[at.stage]);
      rest.begin = end;
      if (rest.empty()) break;
    }
  }
  return parts;
}

}  // namespace attnmux
