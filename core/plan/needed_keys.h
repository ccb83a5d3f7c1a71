// Which keys the queries of some chunks attend.
#pragma once

#include <cstdint>
#include <vector>

#include "attnmux/mask.h"

namespace attnmux {

// Chunks are [i * chunk_size, (i + 1) * chunk_size) queries; group_of_chunk[i] is in [0, groups). Returns, per group,
// the keys that its chunks attend, sorted. One step for each chunk that a slice of the canonical form meets, or, unless
// both of its edges move, for each group.
std::vector<std::vector<Range>> needed_keys(const AttnMaskSpec& mask, int64_t chunk_size,
                                            const std::vector<int32_t>& group_of_chunk, int64_t groups);

}  // namespace attnmux
