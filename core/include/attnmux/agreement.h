// Do all ranks hold the same value? Asked before work that would go astray where they do not.
//
//   expect_agreement(group, table.hash(), "the backends of the attention modules", "start every rank with one config");
//
// Collective: every rank of the group calls it, from one thread each.
#pragma once

#include <string>

#include "attnmux/cp_group.h"
#include "attnmux/export.h"
#include "attnmux/hash.h"

namespace attnmux {

// Throws the same Error(kRankDisagreement) on every rank, naming each hash and the ranks that have it.
ATTNMUX_API void expect_agreement(CpGroup& group, const Hash128& mine, const std::string& what,
                                  const std::string& remedy);

}  // namespace attnmux
