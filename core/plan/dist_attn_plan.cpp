#include "attnmux/dist_attn_plan.h"

#include <algorithm>
#include <mutex>
#include <string>
#include <utility>

#include "../mask/trapezoid.h"
#include "attnmux/error.h"
#include "attnmux/ranges.h"
#include "exchange.h"
#include "local_mask.h"
#include "needed_keys.h"
#include "stage_split.h"

namespace attnmux {
namespace {

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

int64_t area_of(const std::vector<AttnSlice>& slices) {
  int64_t sum = 0;
  for (const AttnSlice& slice : slices) sum += area(slice);
  return sum;
}

// Every rank's keys of each stage: [stages][ranks].
std::vector<std::vector<std::vector<Range>>> keys_of_stages(const std::vector<std::vector<Range>>& remote,
                                                            const std::vector<OwnedRange>& owners,
                                                            const StageOptions& options) {
  const std::vector<double> ends = ends_of_stages(options);
  const auto ranks = static_cast<int32_t>(remote.size());
  std::vector<std::vector<std::vector<Range>>> keys(options.stages, std::vector<std::vector<Range>>(ranks));
  for (int32_t rank = 0; rank < ranks; ++rank) {
    std::vector<std::vector<Range>> parts = spread_over_stages(remote[rank], owners, rank, ranks, ends);
    for (int64_t stage = 0; stage < options.stages; ++stage) keys[stage][rank] = std::move(parts[stage]);
  }
  return keys;
}

Hash128 hash_of(const AttnMaskSpec& mask, const DispatchPlan& dispatch, int64_t stages, double growth) {
  Hasher hasher;
  hasher.add(mask.hash().hi);
  hasher.add(mask.hash().lo);
  hasher.add(dispatch.options.cp);
  hasher.add(dispatch.options.chunk_size);
  hasher.add(dispatch.options.pad);
  hasher.add(dispatch.options.solver);
  hasher.add(stages);
  if (stages > 1) hasher.add(growth);
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
        rows(mask),
        owners(owners_of(dispatch)),
        whole(owners, remote_keys(mask, dispatch)) {
    std::vector<std::vector<Range>> remote;
    for (int32_t rank = 0; rank < dispatch.size(); ++rank) {
      remote.push_back(whole.wanted(rank));
      tokens_moved += count_tokens(remote.back());
    }
    check(stage_options);
    if (tokens_moved > 0) {
      for (std::vector<std::vector<Range>>& keys : keys_of_stages(remote, owners, stage_options)) {
        exchanges.emplace_back(owners, std::move(keys));
      }
    }
    hash = hash_of(mask, dispatch, std::ssize(exchanges), stage_options.growth);
    ranks.resize(dispatch.size());
  }

  RankPlan derive(int32_t rank) const {
    const std::vector<Range> queries = dispatch.ranges_of(rank);
    const std::vector<Range> own_keys = dispatch.key_ranges_of(rank);
    const std::vector<Trapezoid> own = rows.of(queries);
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
  const MaskRows rows;
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
const StageOptions& DistAttnPlan::stage_options() const { return state_->stage_options; }
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
    const std::vector<Trapezoid> own = state_->rows.of(dispatch.ranges_of(rank));
    work[rank].queries = dispatch.tokens_of(rank);
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
