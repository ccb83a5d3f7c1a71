#include "attnmux/dist_attn_plan.h"

#include <algorithm>
#include <mutex>
#include <string>
#include <utility>

#include "../mask/row_index.h"
#include "../mask/trapezoid.h"
#include "attnmux/error.h"
#include "attnmux/ranges.h"
#include "exchange.h"
#include "local_mask.h"
#include "needed_keys.h"

namespace attnmux {
namespace {

constexpr int64_t kMostStages = 1024;

int64_t checked(const StageOptions& options) {
  if (options.stages >= 1 && options.stages <= kMostStages) return options.stages;
  throw Error(ErrorCode::kInvalidArgument,
              "stages = " + std::to_string(options.stages) + " is outside [1, " + std::to_string(kMostStages) + "]");
}

std::vector<OwnedRange> owners_of(const DispatchPlan& dispatch) {
  std::vector<OwnedRange> owners;
  for (int32_t rank = 0; rank < dispatch.size(); ++rank) {
    for (const Range& range : dispatch.key_ranges_of(rank)) owners.push_back({range, rank});
  }
  std::sort(owners.begin(), owners.end(),
            [](const OwnedRange& a, const OwnedRange& b) { return a.tokens.begin < b.tokens.begin; });
  return owners;
}

// Keys that each rank's queries attend and others own.
std::vector<std::vector<Range>> remote_keys(const AttnMaskSpec& mask, const DispatchPlan& dispatch) {
  std::vector<int32_t> rank_of_chunk(dispatch.chunk_areas.size());
  for (int32_t rank = 0; rank < dispatch.size(); ++rank) {
    for (const int32_t chunk : dispatch.chunks_of_rank[rank]) rank_of_chunk[chunk] = rank;
  }
  std::vector<std::vector<Range>> remote =
      needed_keys(mask, dispatch.options.chunk_size, rank_of_chunk, dispatch.size());
  for (int32_t rank = 0; rank < dispatch.size(); ++rank) {
    remote[rank] = subtract(remote[rank], dispatch.key_ranges_of(rank));
  }
  return remote;
}

std::vector<Trapezoid> trapezoids(const AttnMaskSpec& mask) {
  std::vector<Trapezoid> pieces;
  pieces.reserve(mask.disjoint_slices().size());
  for (const AttnSlice& slice : mask.disjoint_slices()) pieces.push_back(*to_trapezoid(slice));
  return pieces;
}

int64_t area_of(const std::vector<AttnSlice>& slices) {
  int64_t sum = 0;
  for (const AttnSlice& slice : slices) sum += area(slice);
  return sum;
}

// The tokens of sorted `ranges` numbered [tokens.begin, tokens.end).
std::vector<Range> numbered(const std::vector<Range>& ranges, Range tokens) {
  std::vector<Range> part;
  int64_t before = 0;
  for (const Range& range : ranges) {
    const Range kept{range.begin + std::clamp<int64_t>(tokens.begin - before, 0, range.size()),
                     range.begin + std::clamp<int64_t>(tokens.end - before, 0, range.size())};
    if (!kept.empty()) part.push_back(kept);
    before += range.size();
  }
  return part;
}

// Every rank's remote keys in equal shares, ascending.
std::vector<std::vector<Range>> keys_of_stage(const std::vector<std::vector<Range>>& remote, int64_t stage,
                                              int64_t stages) {
  std::vector<std::vector<Range>> keys;
  keys.reserve(remote.size());
  for (const std::vector<Range>& ranges : remote) {
    const int64_t tokens = count_tokens(ranges);
    keys.push_back(numbered(ranges, {tokens * stage / stages, tokens * (stage + 1) / stages}));
  }
  return keys;
}

Hash128 hash_of(const AttnMaskSpec& mask, const DispatchPlan& dispatch, int64_t stages) {
  Hasher hasher;
  hasher.add(mask.hash().hi);
  hasher.add(mask.hash().lo);
  hasher.add(dispatch.options.cp);
  hasher.add(dispatch.options.chunk_size);
  hasher.add(dispatch.options.pad);
  hasher.add(dispatch.options.solver);
  hasher.add(stages);
  for (const std::vector<int32_t>& chunks : dispatch.chunks_of_rank) {
    hasher.add(chunks.size());
    for (const int32_t chunk : chunks) hasher.add(chunk);
  }
  return hasher.finish();
}

}  // namespace

struct DistAttnPlan::State {
  State(const AttnMaskSpec& mask, const DispatchPlan& dispatch, const StageOptions& stage_options)
      : mask(mask),
        dispatch(dispatch),
        stage_options(stage_options),
        pieces(trapezoids(mask)),
        rows(pieces),
        owners(owners_of(dispatch)),
        whole(owners, remote_keys(mask, dispatch)) {
    std::vector<std::vector<Range>> remote;
    for (int32_t rank = 0; rank < dispatch.size(); ++rank) {
      remote.push_back(whole.wanted(rank));
      tokens_moved += count_tokens(remote.back());
    }
    const int64_t asked = checked(stage_options);
    const int64_t stages = tokens_moved == 0 ? 0 : asked;
    for (int64_t stage = 0; stage < stages; ++stage) {
      exchanges.emplace_back(owners, keys_of_stage(remote, stage, stages));
    }
    hash = hash_of(mask, dispatch, stages);
    ranks.resize(dispatch.size());
  }

  RankPlan derive(int32_t rank) const {
    const std::vector<Range> queries = dispatch.ranges_of(rank);
    const std::vector<Range> own_keys = dispatch.key_ranges_of(rank);
    const std::vector<Trapezoid> own = local_rows(pieces, rows, queries);
    const auto against = [&](const std::vector<Range>& keys) {
      return AttnMaskSpec(local_slices(own, keys), count_tokens(queries), count_tokens(keys));
    };
    RankPlan plan{.rank = rank,
                  .queries = queries,
                  .remote_k = whole.wanted(rank),
                  .host = {.keys = own_keys, .mask = against(own_keys)},
                  .cast = whole.args(rank, own_keys)};
    for (const Exchange& exchange : exchanges) {
      const std::vector<Range>& keys = exchange.wanted(rank);
      plan.stages.push_back({.keys = keys, .mask = against(keys), .cast = exchange.args(rank, own_keys)});
    }
    return plan;
  }

  const AttnMaskSpec mask;
  const DispatchPlan dispatch;
  const StageOptions stage_options;
  const std::vector<Trapezoid> pieces;  // of the mask
  const RowIndex rows;
  const std::vector<OwnedRange> owners;
  const Exchange whole;             // all remote keys at once
  std::vector<Exchange> exchanges;  // one for each stage
  int64_t tokens_moved = 0;
  Hash128 hash;

  mutable std::mutex mutex;
  mutable std::vector<std::shared_ptr<const RankPlan>> ranks;  // derived so far
};

DistAttnPlan::DistAttnPlan(const AttnMaskSpec& mask, const DispatchOptions& dispatch, const StageOptions& stages)
    : state_(std::make_shared<const State>(mask, plan_dispatch(mask, dispatch), stages)) {}

DistAttnPlan DistAttnPlan::with_mask(const AttnMaskSpec& mask) const {
  const DispatchPlan& dispatch = state_->dispatch;
  if (mask.total_q() != dispatch.total_q || mask.total_k() != dispatch.total_k) {
    throw Error(ErrorCode::kInvalidArgument, "a mask of " + std::to_string(mask.total_q()) + " x " +
                                                 std::to_string(mask.total_k()) + " on a plan of " +
                                                 std::to_string(dispatch.total_q) + " x " +
                                                 std::to_string(dispatch.total_k) + " tokens");
  }
  return DistAttnPlan(std::make_shared<const State>(mask, dispatched_alike(dispatch, mask), state_->stage_options));
}

const AttnMaskSpec& DistAttnPlan::mask() const { return state_->mask; }
const DispatchPlan& DistAttnPlan::dispatch() const { return state_->dispatch; }
int64_t DistAttnPlan::stages() const { return std::ssize(state_->exchanges); }
int64_t DistAttnPlan::tokens_moved() const { return state_->tokens_moved; }
Hash128 DistAttnPlan::hash() const { return state_->hash; }

std::shared_ptr<const RankPlan> DistAttnPlan::rank(int32_t rank) const {
  if (rank < 0 || rank >= state_->dispatch.size()) {
    throw Error(ErrorCode::kInvalidArgument, "rank " + std::to_string(rank) + " of a plan for " +
                                                 std::to_string(state_->dispatch.size()) + " ranks");
  }
  const std::lock_guard lock(state_->mutex);
  std::shared_ptr<const RankPlan>& plan = state_->ranks[rank];
  if (!plan) plan = std::make_shared<const RankPlan>(state_->derive(rank));
  return plan;
}

std::vector<RankWork> DistAttnPlan::work() const {
  const DispatchPlan& dispatch = state_->dispatch;
  std::vector<std::vector<int64_t>> sent;  // by stage and rank
  for (const Exchange& exchange : state_->exchanges) sent.push_back(exchange.tokens_sent());
  std::vector<RankWork> work(dispatch.size());
  for (int32_t rank = 0; rank < dispatch.size(); ++rank) {
    const std::vector<Trapezoid> own = local_rows(state_->pieces, state_->rows, dispatch.ranges_of(rank));
    work[rank].host_area = area_of(local_slices(own, dispatch.key_ranges_of(rank)));
    for (int64_t stage = 0; stage < stages(); ++stage) {
      const std::vector<Range>& keys = state_->exchanges[stage].wanted(rank);
      work[rank].stages.push_back({.area = area_of(local_slices(own, keys)),
                                   .tokens_received = count_tokens(keys),
                                   .tokens_sent = sent[stage][rank]});
    }
  }
  return work;
}

int64_t DistAttnPlan::redundant_tokens() const {
  int64_t sent = 0;
  for (int32_t rank = 0; rank < state_->dispatch.size(); ++rank) {
    for (const Exchange& exchange : state_->exchanges) {
      sent += exchange.args(rank, state_->dispatch.key_ranges_of(rank)).tokens_sent();
    }
  }
  return sent - state_->tokens_moved;
}

}  // namespace attnmux
