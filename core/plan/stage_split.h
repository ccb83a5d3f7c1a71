// How a rank's remote keys are spread over the stages of an attention call.
//
// Early keys of a causal mask are attended by more queries than late ones. Stages cut in key order would compute much
// while little travels, then the reverse, and all ranks would ask the same few owners at the same time. So a rank takes
// the keys owner by owner, beginning with the rank before it, as a ring would: every sender has as many askers in each
// stage as any other, and an owner's chunks, dealt out by area, are a sample of the sequence. Where one owner's keys
// are cut, its first and last chunks go together.
#pragma once

#include <cstdint>
#include <vector>

#include "attnmux/dist_attn_plan.h"
#include "exchange.h"

namespace attnmux {

// Throws Error(kInvalidArgument) for options outside their limits.
void check(const StageOptions& options);

// Where each stage's share ends: ascending, the last is 1.
std::vector<double> ends_of_stages(const StageOptions& options);

// Per stage the keys that `rank` of `ranks` receives in it, sorted. keys: sorted, each owned by another rank. owners:
// as Exchange takes them.
std::vector<std::vector<Range>> spread_over_stages(const std::vector<Range>& keys,
                                                   const std::vector<OwnedRange>& owners, int32_t rank, int32_t ranks,
                                                   const std::vector<double>& ends);

}  // namespace attnmux
