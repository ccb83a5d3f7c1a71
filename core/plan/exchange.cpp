#include "exchange.h"

#include <algorithm>
#include <utility>

namespace attnmux {

int64_t GroupCastArgs::tokens_sent() const {
  int64_t tokens = 0;
  for (size_t i = 0; i < input_splits.size(); ++i) tokens += input_splits[i] * std::ssize(dst[i]);
  return tokens;
}

int64_t GroupCastArgs::tokens_received() const {
  int64_t tokens = 0;
  for (const int64_t split : output_splits) tokens += split;
  return tokens;
}

// Where a rank's wish begins or ends, the set of ranks that get a token changes: a cut on the owner's side, too.
Exchange::Exchange(const std::vector<OwnedRange>& owners, std::vector<std::vector<Range>> wanted)
    : owners_(owners), wanted_(std::move(wanted)) {
  for (const OwnedRange& owned : owners_) cuts_.push_back(owned.tokens.begin);
  for (const std::vector<Range>& ranges : wanted_) {
    for (const Range& range : ranges) cuts_.insert(cuts_.end(), {range.begin, range.end});
  }
  std::sort(cuts_.begin(), cuts_.end());
  cuts_.erase(std::unique(cuts_.begin(), cuts_.end()), cuts_.end());
}

std::vector<int64_t> Exchange::tokens_sent() const {
  std::vector<int64_t> change(cuts_.size(), 0);  // at each cut: wishes that begin minus wishes that end
  const auto at = [&](int64_t cut) { return std::lower_bound(cuts_.begin(), cuts_.end(), cut) - cuts_.begin(); };
  for (const std::vector<Range>& ranges : wanted_) {
    for (const Range& range : ranges) {
      ++change[at(range.begin)];
      --change[at(range.end)];
    }
  }
  std::vector<int64_t> sent(wanted_.size(), 0);
  int64_t wishes = 0;
  auto owner = owners_.begin();
  for (size_t i = 0; i + 1 < cuts_.size(); ++i) {
    wishes += change[i];
    if (wishes == 0) continue;
    while (owner->tokens.end <= cuts_[i]) ++owner;
    sent[owner->rank] += wishes * (cuts_[i + 1] - cuts_[i]);
  }
  return sent;
}

std::vector<Range> Exchange::pieces(const std::vector<Range>& ranges) const {
  std::vector<Range> pieces;
  for (const Range& range : ranges) {
    int64_t begin = range.begin;
    for (auto cut = std::upper_bound(cuts_.begin(), cuts_.end(), begin); cut != cuts_.end() && *cut < range.end;
         ++cut) {
      pieces.push_back({begin, *cut});
      begin = *cut;
    }
    pieces.push_back({begin, range.end});
  }
  return pieces;
}

GroupCastArgs Exchange::args(int32_t rank, const std::vector<Range>& own) const {
  GroupCastArgs args;
  const std::vector<Range> sent = pieces(own);
  for (const Range& piece : sent) args.input_splits.push_back(piece.size());
  args.dst.resize(sent.size());
  for (int32_t other = 0; other < std::ssize(wanted_); ++other) {
    if (other == rank) continue;
    auto want = wanted_[other].begin();
    for (size_t i = 0; i < sent.size(); ++i) {
      want = std::partition_point(want, wanted_[other].end(), [&](const Range& w) { return w.end <= sent[i].begin; });
      if (want == wanted_[other].end()) break;
      if (want->begin <= sent[i].begin) args.dst[i].push_back(other);  // all of it: pieces are cut where wishes begin
    }
  }
  auto owner = owners_.begin();
  for (const Range& piece : pieces(wanted_[rank])) {
    owner = std::partition_point(owner, owners_.end(), [&](const auto& o) { return o.tokens.end <= piece.begin; });
    args.output_splits.push_back(piece.size());
    args.src.push_back(owner->rank);
  }
  return args;
}

}  // namespace attnmux
