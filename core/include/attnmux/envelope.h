// Is a call inside what was planned for its module? (SEL-7: one outside fails, it is never rerouted.)
//
//   std::vector<Reason> outside = outside_of(planned, request_for(mask, q, k, v, options));
//   if (!outside.empty()) throw ...
//
// Pure, any thread.
#pragma once

#include <vector>

#include "attnmux/export.h"
#include "attnmux/request.h"

namespace attnmux {

// One reason for each property of `call` that `planned` does not allow (`want` is the planned value).
ATTNMUX_API std::vector<Reason> outside_of(const AttentionRequest& planned, const AttentionRequest& call);

}  // namespace attnmux
