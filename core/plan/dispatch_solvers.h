// Which rank gets which chunk. Each solver returns the rank of every chunk and puts at most `room` chunks on a rank.
// REQUIRES of all: room * ranks >= chunks.
#pragma once

#include <cstdint>
#include <vector>

#include "attnmux/mask.h"

namespace attnmux {

// Chunks as the solvers order them: largest area first, of equals the later one first.
std::vector<int32_t> largest_first(const std::vector<int64_t>& areas);

// Each chunk, largest first, to the least loaded rank that has room; of equally loaded ranks to the first.
std::vector<int32_t> solve_min_heap(const std::vector<int64_t>& areas, int64_t ranks, int64_t room);

// Neighbouring chunks, as many on each rank as on any other or one fewer.
std::vector<int32_t> solve_sequential(int64_t chunks, int64_t ranks);

// The smallest largest area of a rank. REQUIRES: at most kMostExactChunks chunks.
inline constexpr int64_t kMostExactChunks = 16;
std::vector<int32_t> solve_exact(const std::vector<int64_t>& areas, int64_t ranks, int64_t room);

// What an IO-aware solver must know beside areas.
struct ChunkKeys {
  std::vector<std::vector<Range>> touched;  // per chunk: keys it attends, and those that its rank comes to own; sorted
  std::vector<std::vector<Range>> held;     // per rank: keys it owns whatever chunks it gets; sorted
};

// Each chunk, largest first, to the rank that holds most of the keys it touches, among those that stay within 1 % of
// an even share of the chunks dealt so far; where none does, to the least loaded one. Min-heap's solution where that
// moves fewer tokens.
std::vector<int32_t> solve_io_aware(const std::vector<int64_t>& areas, int64_t room, const ChunkKeys& keys);

}  // namespace attnmux
