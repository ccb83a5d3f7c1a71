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

// Of slices that are disjoint.
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

void check(const OverlapOptions& overlap) {
  check(overlap.forward);
  check(overlap.backward);
  if (overlap.keep_remote_keys && overlap.backward != overlap.forward) {
    throw Error(ErrorCode::kInvalidArgument, "keep_remote_keys with stages of its own for backward (" +
                                                 std::to_string(overlap.backward.stages) + " beside " +
                                                 std::to_string(overlap.forward.stages) +
                                                 " forward): kept keys lie as they arrived; leave out one of the two");
  }
}

Hash128 hash_of(const AttnMaskSpec& mask, const DispatchPlan& dispatch, const OverlapOptions& overlap, bool exchanges) {
  Hasher hasher;
  hasher.add(mask.hash().hi);
  hasher.add(mask.hash().lo);
  hasher.add(dispatch.options.cp);
  hasher.add(dispatch.options.chunk_size);
  hasher.add(dispatch.options.pad);
  hasher.add(dispatch.options.solver);
  if (exchanges) {
    for (const StageOptions& stages : {overlap.forward, overlap.backward}) {
      hasher.add(stages.stages);
      if (stages.stages > 1) hasher.add(stages.growth);
    }
    hasher.add(overlap.keep_remote_keys);
  }
  for (const std::vector<int32_t>& chunks : dispatch.chunks_of_rank) {
    hasher.add(chunks.size());
    for (const int32_t chunk : chunks) hasher.add(chunk);
  }
  return hasher.finish();
}

}  // namespace

struct DistAttnPlan::State {
  State(const AttnMaskSpec& mask, const DispatchPlan& dispatch, const OverlapOptions& overlap)
      : mask(mask),
        dispatch(dispatch),
        overlap(overlap),
        rows(mask),
        owners(owners_of(dispatch)),
        whole(owners, remote_keys(mask, dispatch)) {
    std::vector<std::vector<Range>> remote;
    for (int32_t rank = 0; rank < dispatch.size(); ++rank) {
      remote.push_back(whole.wanted(rank));
      tokens_moved += count_tokens(remote.back());
    }
    check(overlap);
    if (tokens_moved > 0) {
      exchanges = exchanges_of(remote, overlap.forward);
      if (overlap.backward != overlap.forward) backward_exchanges = exchanges_of(remote, overlap.backward);
    }
    hash = hash_of(mask, dispatch, overlap, /*exchanges=*/tokens_moved > 0);
    ranks.resize(dispatch.size());
  }

  std::vector<Exchange> exchanges_of(const std::vector<std::vector<Range>>& remote, const StageOptions& options) const {
    std::vector<Exchange> stages;
    for (std::vector<std::vector<Range>>& keys : keys_of_stages(remote, owners, options)) {
      stages.emplace_back(owners, std::move(keys));
    }
    return stages;
  }

  RankPlan derive(int32_t rank) const {
    const std::vector<Range> queries = dispatch.ranges_of(rank);
    const std::vector<Range> own_keys = dispatch.key_ranges_of(rank);
    const std::vector<Trapezoid> own = rows.of(queries);
    const auto part_of = [&](const std::vector<Range>& keys) -> PartPlan {
      const std::vector<AttnSlice> slices = local_slices(own, keys);
      const std::vector<Range> rows = attended_rows(slices);
      return {.keys = keys,
              .rows = rows,
              .mask = AttnMaskSpec(without_other_rows(slices, rows), count_tokens(rows), count_tokens(keys))};
    };
    RankPlan plan{.rank = rank,
                  .queries = queries,
                  .remote_k = whole.wanted(rank),
                  .host = part_of(own_keys),
                  .cast = whole.args(rank, own_keys)};
    const auto stages_of = [&](const std::vector<Exchange>& pass) {
      std::vector<StagePlan> stages;
      for (const Exchange& exchange : pass) {
        stages.push_back({part_of(exchange.wanted(rank)), exchange.args(rank, own_keys)});
      }
      return stages;
    };
    plan.stages = stages_of(exchanges);
    plan.backward_stages = stages_of(backward_exchanges);
    return plan;
  }

  const AttnMaskSpec mask;
  const DispatchPlan dispatch;
  const OverlapOptions overlap;
  const MaskRows rows;
  const std::vector<OwnedRange> owners;
  const Exchange whole;                      // all remote keys at once
  std::vector<Exchange> exchanges;           // one for each stage
  std::vector<Exchange> backward_exchanges;  // where backward has stages of its own
  int64_t tokens_moved = 0;
  Hash128 hash;

  mutable std::mutex mutex;
  mutable std::vector<std::shared_ptr<const RankPlan>> ranks;  // derived so far
};

DistAttnPlan::DistAttnPlan(const AttnMaskSpec& mask, const DispatchOptions& dispatch, const OverlapOptions& overlap)
    : state_(std::make_shared<const State>(mask, plan_dispatch(mask, dispatch), overlap)) {}

DistAttnPlan DistAttnPlan::with_mask(const AttnMaskSpec& mask) const {
  const DispatchPlan& dispatch = state_->dispatch;
  if (mask.total_q() != dispatch.total_q || mask.total_k() != dispatch.total_k) {
    throw Error(ErrorCode::kInvalidArgument, "a mask of " + std::to_string(mask.total_q()) + " x " +
                                                 std::to_string(mask.total_k()) + " on a plan of " +
                                                 std::to_string(dispatch.total_q) + " x " +
                                                 std::to_string(dispatch.total_k) + " tokens");
  }
  return DistAttnPlan(std::make_shared<const State>(mask, dispatched_alike(dispatch, mask), state_->overlap));
}

const AttnMaskSpec& DistAttnPlan::mask() const { return state_->mask; }
const DispatchPlan& DistAttnPlan::dispatch() const { return state_->dispatch; }
int64_t DistAttnPlan::stages(Pass pass) const {
  const bool own = pass == Pass::kBackward && !state_->backward_exchanges.empty();
  return std::ssize(own ? state_->backward_exchanges : state_->exchanges);
}
const OverlapOptions& DistAttnPlan::overlap() const { return state_->overlap; }
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
  std::vector<RankWork> work(dispatch.size());
  std::vector<std::vector<Trapezoid>> own(dispatch.size());
  for (int32_t rank = 0; rank < dispatch.size(); ++rank) {
    own[rank] = state_->rows.of(dispatch.ranges_of(rank));
    const std::vector<AttnSlice> host = local_slices(own[rank], dispatch.key_ranges_of(rank));
    work[rank].host_area = area_of(host);
    work[rank].host_rows = count_tokens(attended_rows(host));
    work[rank].host_keys = count_tokens(dispatch.key_ranges_of(rank));
    work[rank].keeps_remote_keys = state_->overlap.keep_remote_keys;
  }
  const auto add = [&](const Exchange& exchange, std::vector<StageWork> RankWork::*stages) {
    const std::vector<int64_t> sent = exchange.tokens_sent();
    for (int32_t rank = 0; rank < dispatch.size(); ++rank) {
      const std::vector<Range>& keys = exchange.wanted(rank);
      const std::vector<AttnSlice> slices = local_slices(own[rank], keys);
      (work[rank].*stages)
          .push_back({.area = area_of(slices),
                      .rows = count_tokens(attended_rows(slices)),
                      .tokens_received = count_tokens(keys),
                      .tokens_sent = sent[rank]});
    }
  };
  for (const Exchange& exchange : state_->exchanges) add(exchange, &RankWork::stages);
  for (const Exchange& exchange : state_->backward_exchanges) add(exchange, &RankWork::backward_stages);
  return work;
}

int64_t DistAttnPlan::redundant_tokens() const {
  int64_t redundant = 0;
  for (const std::vector<Exchange>* pass : {&state_->exchanges, &state_->backward_exchanges}) {
    if (pass->empty()) continue;
    redundant -= state_->tokens_moved;
    for (int32_t rank = 0; rank < state_->dispatch.size(); ++rank) {
      for (const Exchange& exchange : *pass) {
        redundant += exchange.args(rank, state_->dispatch.key_ranges_of(rank)).tokens_sent();
      }
    }
  }
  return redundant;
}

}  // namespace attnmux
