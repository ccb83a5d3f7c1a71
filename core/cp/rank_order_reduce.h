// Sums that are the same bits on every rank: each element is added up in the order of ranks, in fp32 for bf16 and fp16,
// and rounded once.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <vector>

#include "attnmux/cp_group.h"

namespace attnmux {

bool can_reduce(at::ScalarType dtype);

// Reduces elements [begin, end) of every rank's buffer and writes the result into all of them. A maximum with a NaN is
// NaN. REQUIRES: can_reduce(dtype).
void reduce_in_rank_order(at::ScalarType dtype, ReduceOp op, const std::vector<void*>& buffers, int64_t begin,
                          int64_t end);

}  // namespace attnmux
