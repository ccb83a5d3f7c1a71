// One trace of ranks that are processes: each has written down its own spans, rank 0 gets all of them.
#pragma once

#include "attnmux/cp_group.h"
#include "attnmux/trace.h"

namespace attnmux {

// Adds the other ranks' spans to rank 0's trace. Collective over `world`, at the end of a run. Times are compared by
// the system clocks: exact to microseconds on one host, as good as the hosts' clocks agree between several.
void gather_trace(Trace& trace, CpGroup& world);

}  // namespace attnmux
