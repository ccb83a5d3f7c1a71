// Flags of how a sequence is dealt out to ranks, shared by the commands that plan for a group.
#pragma once

#include "attnmux/dispatch_plan.h"
#include "tools/attnmux/command.h"

namespace attnmux::tool {

struct DispatchFlags {
  int64_t cp = 1;
  int64_t chunk_size = 512;

  void add_to(Flags& flags);
  // Of a sequence of so many queries. A chunk size that was not given is an even share of a sequence shorter than the
  // default. Throws Error(kUsage), in the words of the flags, for ranks and chunks that cannot be.
  DispatchOptions options(const Flags& flags, int64_t queries) const;
};

}  // namespace attnmux::tool
