// One exchange of keys between all ranks, as each rank sees it.
//
// A piece is a longest range of one rank's tokens that goes to one set of ranks. Senders and receivers cut at the same
// tokens, so that a piece sent is a piece received.
#pragma once

#include <cstdint>
#include <vector>

#include "attnmux/group_cast.h"
#include "attnmux/mask.h"

namespace attnmux {

struct OwnedRange {
  Range tokens;
  int32_t rank = 0;
};

class Exchange {
 public:
  // owners: ascending, all tokens that anybody wants, neighbours of one rank joined. wanted: per rank, sorted, none of
  // its own tokens.
  Exchange(const std::vector<OwnedRange>& owners, std::vector<std::vector<Range>> wanted);

  const std::vector<Range>& wanted(int32_t rank) const { return wanted_[rank]; }

  // Per rank, tokens that it sends; a token counts once for each rank that gets it.
  std::vector<int64_t> tokens_sent() const;

  // own: the rank's tokens, ascending.
  GroupCastArgs args(int32_t rank, const std::vector<Range>& own) const;

 private:
  std::vector<Range> pieces(const std::vector<Range>& ranges) const;

  const std::vector<OwnedRange>& owners_;
  std::vector<std::vector<Range>> wanted_;
  std::vector<int64_t> cuts_;  // tokens at which some piece begins or ends, ascending
};

}  // namespace attnmux
