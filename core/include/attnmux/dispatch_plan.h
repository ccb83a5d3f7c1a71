// Which rank owns which tokens: the sequence cut into chunks, the chunks dealt out by attended area.
//
//   DispatchPlan plan = plan_dispatch(mask, {.cp = 4, .chunk_size = 512});
//   plan.ranges_of(2);     // rank 2's tokens, in its local order
//   plan.balance();        // largest area of a rank / mean area
//
// A function of the mask and the options alone: every rank derives the same plan without a collective. Immutable, any
// thread. With cp = 1 the one rank owns everything in order, without padding.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "attnmux/export.h"
#include "attnmux/mask.h"

namespace attnmux {

// How chunks are dealt out. A rank has room for ceil(chunks / cp) of them.
//   kMinHeap: largest area first (of equals the later chunk), each to the least loaded rank with room
//   kIoAware: likewise, but among ranks less than 1 % ahead of an even share to the one that already holds most of the
//     chunk's keys; never moves more tokens than kMinHeap
//   kSequential: neighbours stay together
//   kExact: the smallest largest area, for at most 16 chunks; room for any number of chunks unless padded
enum class DispatchSolver : uint8_t { kMinHeap, kIoAware, kSequential, kExact };
ATTNMUX_API std::string_view to_string(DispatchSolver solver);  // "min-heap", "io-aware", "sequential", "exact"
ATTNMUX_API DispatchSolver parse_dispatch_solver(std::string_view name);  // throws Error(kUsage), nearest spelling

inline constexpr int64_t kMostRanks = 1 << 16;

struct DispatchOptions {
  int64_t cp = 1;            // ranks, at most kMostRanks; may exceed the number of chunks: ranks without work take part
  int64_t chunk_size = 512;  // tokens
  bool pad = false;          // to a multiple of chunk_size * cp; padding attends nothing and is attended by nothing
  DispatchSolver solver = DispatchSolver::kMinHeap;
  friend bool operator==(const DispatchOptions&, const DispatchOptions&) = default;
};

struct ATTNMUX_API DispatchPlan {
  DispatchOptions options;
  int64_t total_q = 0;  // tokens, without padding
  int64_t total_k = 0;
  int64_t padding = 0;                               // (-total) mod (chunk_size * cp) in padded mode, else 0
  std::vector<int64_t> chunk_areas;                  // attended pairs of each chunk's queries
  std::vector<std::vector<int32_t>> chunks_of_rank;  // ascending; every chunk once

  int32_t size() const { return static_cast<int32_t>(chunks_of_rank.size()); }
  Range chunk(int32_t index) const;  // tokens, padding included; the last may be shorter

  // Tokens of a rank in its local order (ascending), neighbouring chunks joined; padding is the tail [total, total +
  // padding). For cross lengths keys are owned in equal neighbouring shares, otherwise as queries are.
  std::vector<Range> ranges_of(int32_t rank) const;
  std::vector<Range> key_ranges_of(int32_t rank) const;
  int64_t tokens_of(int32_t rank) const;
  int64_t area_of(int32_t rank) const;
  double balance() const;  // largest area / mean area; 1 for an empty mask
};

// Throws Error(kInvalidArgument): cp or chunk_size below 1; with cp > 1 chunk_size above the sequence (names both) and
// padding of cross lengths; kExact with more than 16 chunks.
ATTNMUX_API DispatchPlan plan_dispatch(const AttnMaskSpec& mask, const DispatchOptions& options);

// The same tokens on the same ranks, with the areas of another mask. REQUIRES: equal totals.
ATTNMUX_API DispatchPlan dispatched_alike(const DispatchPlan& plan, const AttnMaskSpec& mask);

}  // namespace attnmux
