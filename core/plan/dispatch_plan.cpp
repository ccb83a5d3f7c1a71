#include "attnmux/dispatch_plan.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>

#include "attnmux/error.h"
#include "attnmux/ranges.h"
#include "attnmux/spelling.h"
#include "dispatch_solvers.h"
#include "needed_keys.h"

namespace attnmux {
namespace {

constexpr int64_t kMostTokens = std::numeric_limits<int32_t>::max();

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorCode::kInvalidArgument, "dispatch: " + what); }

void check(const AttnMaskSpec& mask, const DispatchOptions& options) {
  const std::string cp = "cp = " + std::to_string(options.cp);
  const std::string chunk_size = "chunk_size = " + std::to_string(options.chunk_size);
  if (options.cp < 1 || options.cp > kMostRanks) {
    refuse(cp + ": the number of ranks is at least 1 and at most " + std::to_string(kMostRanks));
  }
  if (options.chunk_size < 1) refuse(chunk_size + ": a chunk has at least 1 token");
  if (options.cp == 1) return;
  if (mask.total_q() > 0 && options.chunk_size > mask.total_q()) {
    refuse(chunk_size + " is longer than the sequence of " + std::to_string(mask.total_q()) + " tokens, so that " +
           std::to_string(options.cp) + " ranks would share one chunk; take at most " +
           std::to_string((mask.total_q() + options.cp - 1) / options.cp) + " for a chunk on every rank");
  }
  if (options.pad && mask.total_q() != mask.total_k()) {
    refuse("padding needs as many queries as keys, and this mask has " + std::to_string(mask.total_q()) + " and " +
           std::to_string(mask.total_k()) + "; leave padding out: the last chunk may be shorter");
  }
}

int64_t padding_of(int64_t total, const DispatchOptions& options) {
  if (!options.pad || options.cp == 1) return 0;
  const int64_t multiple = options.chunk_size * options.cp;
  const int64_t padded = (total + multiple - 1) / multiple * multiple;
  if (padded > kMostTokens) {
    refuse(std::to_string(total) + " tokens padded to a multiple of chunk_size * cp = " + std::to_string(multiple) +
           " are more than " + std::to_string(kMostTokens) + "; take a smaller chunk_size or leave padding out");
  }
  return padded - total;
}

std::vector<int64_t> areas_of_chunks(const AttnMaskSpec& mask, int64_t chunk_size, int64_t tokens) {
  std::vector<int64_t> areas(tokens == 0 ? 0 : (tokens - 1) / chunk_size + 1, 0);
  for (int64_t i = 0; i < std::ssize(areas) && i * chunk_size < mask.total_q(); ++i) {
    areas[i] = mask.area({i * chunk_size, std::min((i + 1) * chunk_size, mask.total_q())});
  }
  return areas;
}

ChunkKeys keys_of_chunks(const AttnMaskSpec& mask, const DispatchPlan& plan) {
  std::vector<int32_t> each(plan.chunk_areas.size());
  std::iota(each.begin(), each.end(), 0);
  ChunkKeys keys{.touched = needed_keys(mask, plan.options.chunk_size, each, std::ssize(each)),
                 .held = std::vector<std::vector<Range>>(plan.options.cp)};
  if (plan.total_q == plan.total_k) {
    for (const int32_t i : each) {
      keys.touched[i].push_back(plan.chunk(i));
      keys.touched[i] = unite(std::move(keys.touched[i]));
    }
  } else {
    for (int32_t rank = 0; rank < plan.options.cp; ++rank) keys.held[rank] = plan.key_ranges_of(rank);
  }
  return keys;
}

std::vector<int32_t> solve(const AttnMaskSpec& mask, const DispatchPlan& plan) {
  const std::vector<int64_t>& areas = plan.chunk_areas;
  const int64_t ranks = plan.options.cp;
  const int64_t room = (std::ssize(areas) + ranks - 1) / ranks;
  switch (plan.options.solver) {
    case DispatchSolver::kMinHeap: return solve_min_heap(areas, ranks, room);
    case DispatchSolver::kIoAware: return solve_io_aware(areas, room, keys_of_chunks(mask, plan));
    case DispatchSolver::kSequential: return solve_sequential(std::ssize(areas), ranks);
    case DispatchSolver::kExact:
      if (std::ssize(areas) > kMostExactChunks) {
        refuse("the exact solver takes at most " + std::to_string(kMostExactChunks) +
               " chunks, and this sequence has " + std::to_string(areas.size()) +
               "; take a larger chunk_size, or the min-heap solver");
      }
      return solve_exact(areas, ranks, plan.options.pad ? room : std::ssize(areas));
  }
  refuse("unknown solver");
}

}  // namespace

std::string_view to_string(DispatchSolver solver) {
  switch (solver) {
    case DispatchSolver::kMinHeap: return "min-heap";
    case DispatchSolver::kIoAware: return "io-aware";
    case DispatchSolver::kSequential: return "sequential";
    case DispatchSolver::kExact: return "exact";
  }
  return "unknown";
}

DispatchSolver parse_dispatch_solver(std::string_view name) {
  std::vector<std::string> known;
  for (const DispatchSolver solver :
       {DispatchSolver::kMinHeap, DispatchSolver::kIoAware, DispatchSolver::kSequential, DispatchSolver::kExact}) {
    if (name == to_string(solver)) return solver;
    known.emplace_back(to_string(solver));
  }
  throw Error(ErrorCode::kUsage, unknown_word("dispatch solver", name, known));
}

Range DispatchPlan::chunk(int32_t index) const {
  const int64_t begin = index * options.chunk_size;
  return {begin, std::min(begin + options.chunk_size, total_q + padding)};
}

std::vector<Range> DispatchPlan::ranges_of(int32_t rank) const {
  std::vector<Range> ranges;
  for (const int32_t index : chunks_of_rank[rank]) {
    if (!ranges.empty() && ranges.back().end == chunk(index).begin) {
      ranges.back().end = chunk(index).end;
    } else {
      ranges.push_back(chunk(index));
    }
  }
  return ranges;
}

std::vector<Range> DispatchPlan::key_ranges_of(int32_t rank) const {
  if (total_q == total_k) return ranges_of(rank);
  const Range share{total_k * rank / options.cp, total_k * (rank + 1) / options.cp};
  return share.empty() ? std::vector<Range>() : std::vector<Range>{share};
}

int64_t DispatchPlan::tokens_of(int32_t rank) const { return count_tokens(ranges_of(rank)); }

int64_t DispatchPlan::area_of(int32_t rank) const {
  int64_t area = 0;
  for (const int32_t index : chunks_of_rank[rank]) area += chunk_areas[index];
  return area;
}

double DispatchPlan::balance() const {
  int64_t largest = 0, sum = 0;
  for (int32_t rank = 0; rank < size(); ++rank) {
    largest = std::max(largest, area_of(rank));
    sum += area_of(rank);
  }
  return sum == 0 ? 1 : static_cast<double>(largest) * size() / static_cast<double>(sum);
}

DispatchPlan plan_dispatch(const AttnMaskSpec& mask, const DispatchOptions& options) {
  check(mask, options);
  DispatchPlan plan{.options = options,
                    .total_q = mask.total_q(),
                    .total_k = mask.total_k(),
                    .padding = padding_of(mask.total_q(), options)};
  plan.chunk_areas = areas_of_chunks(mask, options.chunk_size, plan.total_q + plan.padding);
  plan.chunks_of_rank.resize(options.cp);
  const std::vector<int32_t> rank_of = solve(mask, plan);
  for (int32_t i = 0; i < std::ssize(rank_of); ++i) plan.chunks_of_rank[rank_of[i]].push_back(i);
  return plan;
}

DispatchPlan dispatched_alike(const DispatchPlan& plan, const AttnMaskSpec& mask) {
  DispatchPlan alike = plan;
  alike.chunk_areas = areas_of_chunks(mask, plan.options.chunk_size, plan.total_q + plan.padding);
  return alike;
}

}  // namespace attnmux
