#include <algorithm>
#include <numeric>

#include "../common/deliver.h"
#include "attnmux/dist_attn_plan.h"
#include "attnmux/ranges.h"
#include "check.h"
#include "random_mask.h"

namespace attnmux {
namespace {

struct Case {
  RandomMask mask;
  DispatchOptions dispatch;
  OverlapOptions overlap;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.mask << "\ncp " << c.dispatch.cp << ", chunk_size " << c.dispatch.chunk_size << ", pad "
             << c.dispatch.pad << ", solver " << to_string(c.dispatch.solver) << ", stages " << c.overlap.forward.stages
             << " that grow " << c.overlap.forward.growth << " times, backward " << c.overlap.backward.stages
             << " that grow " << c.overlap.backward.growth << " times";
}

Case random_case() {
  Case c{.mask = *random_mask()};
  if (*rc::gen::weightedElement<bool>({{3, true}, {1, false}})) {  // as self-attention has it
    const int64_t total = std::max(c.mask.total_q, c.mask.total_k);
    c.mask.total_q = c.mask.total_k = total;
  }
  const int64_t total = c.mask.total_q;
  const int64_t longest_chunk = std::clamp<int64_t>(total, 1, 64);
  c.dispatch.cp = *rc::gen::inRange<int64_t>(1, 9);
  c.dispatch.chunk_size = *rc::gen::inRange<int64_t>(1, longest_chunk + 1);
  c.dispatch.pad = total == c.mask.total_k && *rc::gen::arbitrary<bool>();
  c.dispatch.solver =
      *rc::gen::element(DispatchSolver::kMinHeap, DispatchSolver::kIoAware, DispatchSolver::kSequential);
  const int64_t chunks = (total + c.dispatch.chunk_size * c.dispatch.cp) / c.dispatch.chunk_size;
  if (chunks <= 9 && *rc::gen::arbitrary<bool>()) c.dispatch.solver = DispatchSolver::kExact;
  for (StageOptions* pass : {&c.overlap.forward, &c.overlap.backward}) {
    pass->stages = *rc::gen::element<int64_t>(1, 2, 3, 4);
    pass->growth = *rc::gen::element(1.0, 0.5, 2.0);
  }
  if (*rc::gen::inRange(0, 3) == 0) c.overlap.backward = c.overlap.forward;
  return c;
}

constexpr Pass kPasses[] = {Pass::kForward, Pass::kBackward};

std::vector<int64_t> tokens_of(const std::vector<Range>& ranges) {
  std::vector<int64_t> tokens;
  for (const Range& range : ranges) {
    for (int64_t token = range.begin; token < range.end; ++token) tokens.push_back(token);
  }
  return tokens;
}

// Counts a part's pairs in global numbers: cover[q * total_k + k].
void add_pairs(const PartPlan& part, const std::vector<Range>& queries, int64_t total_q, int64_t total_k,
               std::vector<uint8_t>* cover) {
  const std::vector<int64_t> q = tokens_of(queries), rows = tokens_of(part.rows), k = tokens_of(part.keys);
  RC_ASSERT(part.rows == unite(part.rows));
  RC_ASSERT((rows.empty() || rows.back() < std::ssize(q)));
  RC_ASSERT(part.mask.total_q() == std::ssize(rows));
  RC_ASSERT(part.mask.total_k() == std::ssize(k));
  for (int64_t row = 0; row < part.mask.total_q(); ++row) {
    RC_ASSERT(!part.mask.keys_of_row(row).empty());
    for (const Range& run : part.mask.keys_of_row(row)) {
      for (int64_t key = run.begin; key < run.end; ++key) {
        RC_ASSERT(q[rows[row]] < total_q);
        RC_ASSERT(k[key] < total_k);
        ++(*cover)[q[rows[row]] * total_k + k[key]];
      }
    }
  }
}

TEST(DistAttnPlanProperty, ChunksAreDealtOutOnceAndAreasAdd) {
  check_property(3000, [] {
    const Case c = *rc::gen::exec(random_case);
    const DispatchPlan plan = plan_dispatch(c.mask.spec(), c.dispatch);
    const std::vector<uint8_t> pairs = dense(c.mask);
    const int64_t chunks = std::ssize(plan.chunk_areas);
    const int64_t room = (chunks + c.dispatch.cp - 1) / c.dispatch.cp;
    RC_ASSERT((plan.total_q + plan.padding + c.dispatch.chunk_size - 1) / c.dispatch.chunk_size == chunks);
    RC_ASSERT(std::accumulate(plan.chunk_areas.begin(), plan.chunk_areas.end(), int64_t{0}) ==
              std::accumulate(pairs.begin(), pairs.end(), int64_t{0}));
    std::vector<Range> queries, keys;
    std::vector<int32_t> dealt;
    for (int32_t rank = 0; rank < plan.size(); ++rank) {
      const std::vector<int32_t>& of_rank = plan.chunks_of_rank[rank];
      if (c.dispatch.solver != DispatchSolver::kExact || c.dispatch.pad) RC_ASSERT(std::ssize(of_rank) <= room);
      RC_ASSERT(std::is_sorted(of_rank.begin(), of_rank.end()));
      dealt.insert(dealt.end(), of_rank.begin(), of_rank.end());
      const std::vector<Range> own = plan.ranges_of(rank);
      const std::vector<Range> own_keys = plan.key_ranges_of(rank);
      RC_ASSERT(own == unite(own));
      RC_ASSERT(plan.tokens_of(rank) == count_tokens(own));
      int64_t area = 0;
      for (const int64_t q : tokens_of(own)) {
        if (q >= plan.total_q) continue;
        for (int64_t k = 0; k < plan.total_k; ++k) area += pairs[q * plan.total_k + k];
      }
      RC_ASSERT(plan.area_of(rank) == area);
      queries.insert(queries.end(), own.begin(), own.end());
      keys.insert(keys.end(), own_keys.begin(), own_keys.end());
    }
    std::sort(dealt.begin(), dealt.end());
    std::vector<int32_t> all(chunks);
    std::iota(all.begin(), all.end(), 0);
    RC_ASSERT(dealt == all);
    RC_ASSERT(count_tokens(queries) == plan.total_q + plan.padding);
    RC_ASSERT(count_tokens(unite(queries)) == plan.total_q + plan.padding);
    RC_ASSERT(count_tokens(keys) == plan.total_k + plan.padding);
    RC_ASSERT(count_tokens(unite(keys)) == plan.total_k + plan.padding);
  });
}

TEST(DistAttnPlanProperty, PartsOfAllRanksAreTheMaskOnce) {
  check_property(3000, [] {
    const Case c = *rc::gen::exec(random_case);
    const DistAttnPlan plan(c.mask.spec(), c.dispatch, c.overlap);
    for (const Pass pass : kPasses) {
      std::vector<uint8_t> cover(c.mask.total_q * c.mask.total_k, 0);
      for (int32_t rank = 0; rank < plan.dispatch().size(); ++rank) {
        const std::shared_ptr<const RankPlan> mine = plan.rank(rank);
        RC_ASSERT(mine->queries == plan.dispatch().ranges_of(rank));
        RC_ASSERT(mine->host.keys == plan.dispatch().key_ranges_of(rank));
        add_pairs(mine->host, mine->queries, c.mask.total_q, c.mask.total_k, &cover);
        RC_ASSERT(std::ssize(mine->of(pass)) == plan.stages(pass));
        for (const StagePlan& stage : mine->of(pass)) {
          add_pairs(stage, mine->queries, c.mask.total_q, c.mask.total_k, &cover);
        }
      }
      RC_ASSERT((cover.empty() || *std::max_element(cover.begin(), cover.end()) <= 1));
      RC_ASSERT(difference(cover, dense(c.mask), c.mask.total_k) == "");
    }
  });
}

// What brute force finds that a rank needs and does not own: it arrives, once, in order, and nothing else does.
TEST(DistAttnPlanProperty, EachRemoteTokenArrivesOnce) {
  check_property(3000, [] {
    const Case c = *rc::gen::exec(random_case);
    const DistAttnPlan plan(c.mask.spec(), c.dispatch, c.overlap);
    const std::vector<uint8_t> pairs = dense(c.mask);
    const int32_t ranks = plan.dispatch().size();
    std::vector<std::vector<int64_t>> own(ranks), needed(ranks);
    int64_t moved = 0;
    for (int32_t rank = 0; rank < ranks; ++rank) {
      own[rank] = tokens_of(plan.dispatch().key_ranges_of(rank));
      const std::vector<int64_t> queries = tokens_of(plan.dispatch().ranges_of(rank));
      for (int64_t k = 0; k < c.mask.total_k; ++k) {
        const bool attended = std::any_of(queries.begin(), queries.end(), [&](int64_t q) {
          return q < c.mask.total_q && pairs[q * c.mask.total_k + k] != 0;
        });
        if (attended && !std::binary_search(own[rank].begin(), own[rank].end(), k)) needed[rank].push_back(k);
      }
      RC_ASSERT(tokens_of(plan.rank(rank)->remote_k) == needed[rank]);
      moved += std::ssize(needed[rank]);
    }
    std::vector<GroupCastArgs> whole;
    for (int32_t rank = 0; rank < ranks; ++rank) whole.push_back(plan.rank(rank)->cast);
    RC_ASSERT(deliver(whole, own) == needed);
    for (const Pass pass : kPasses) {
      std::vector<std::vector<int64_t>> arrived(ranks);
      for (int64_t stage = 0; stage < plan.stages(pass); ++stage) {
        std::vector<GroupCastArgs> args;
        for (int32_t rank = 0; rank < ranks; ++rank) args.push_back(plan.rank(rank)->of(pass)[stage].cast);
        const std::vector<std::vector<int64_t>> received = deliver(args, own);
        for (int32_t rank = 0; rank < ranks; ++rank) {
          RC_ASSERT(received[rank] == tokens_of(plan.rank(rank)->of(pass)[stage].keys));
          arrived[rank].insert(arrived[rank].end(), received[rank].begin(), received[rank].end());
        }
      }
      for (std::vector<int64_t>& tokens : arrived) std::sort(tokens.begin(), tokens.end());  // stages are samples
      RC_ASSERT(arrived == needed);
    }
    RC_ASSERT(plan.tokens_moved() == moved);
    RC_ASSERT(plan.redundant_tokens() == 0);
  });
}

TEST(DistAttnPlanProperty, WorkIsWhatTheRankPlansHold) {
  check_property(1500, [] {
    const Case c = *rc::gen::exec(random_case);
    const DistAttnPlan plan(c.mask.spec(), c.dispatch, c.overlap);
    const std::vector<RankWork> work = plan.work();
    RC_ASSERT(std::ssize(work) == plan.dispatch().size());
    for (int32_t rank = 0; rank < plan.dispatch().size(); ++rank) {
      const std::shared_ptr<const RankPlan> mine = plan.rank(rank);
      RC_ASSERT(work[rank].host_area == mine->host.mask.area());
      RC_ASSERT(work[rank].host_rows == count_tokens(mine->host.rows));
      RC_ASSERT(work[rank].host_keys == count_tokens(mine->host.keys));
      for (const Pass pass : kPasses) {
        const std::vector<StageWork>& stages = work[rank].of(pass);
        const std::vector<StagePlan>& planned = mine->of(pass);
        RC_ASSERT(stages.size() == planned.size());
        for (size_t stage = 0; stage < stages.size(); ++stage) {
          RC_ASSERT(stages[stage].area == planned[stage].mask.area());
          RC_ASSERT(stages[stage].rows == count_tokens(planned[stage].rows));
          RC_ASSERT(stages[stage].tokens_received == planned[stage].cast.tokens_received());
          RC_ASSERT(stages[stage].tokens_sent == planned[stage].cast.tokens_sent());
        }
      }
    }
  });
}

TEST(DistAttnPlanProperty, IoAwareMovesNoMoreThanMinHeap) {
  check_property(1000, [] {
    Case c = *rc::gen::exec(random_case);
    c.dispatch.solver = DispatchSolver::kIoAware;
    const int64_t moved = DistAttnPlan(c.mask.spec(), c.dispatch, {}).tokens_moved();
    c.dispatch.solver = DispatchSolver::kMinHeap;
    RC_ASSERT(moved <= DistAttnPlan(c.mask.spec(), c.dispatch, {}).tokens_moved());
  });
}

// Every way to deal the chunks out, for inputs small enough to try them all.
TEST(DistAttnPlanProperty, ExactIsTheSmallestLargestArea) {
  check_property(1000, [] {
    const int64_t chunks = *rc::gen::inRange<int64_t>(1, 8);
    const int64_t cp = *rc::gen::inRange<int64_t>(2, 5);
    std::vector<AttnSlice> slices;
    for (int64_t i = 0; i < chunks; ++i) slices.push_back({{i, i + 1}, {0, *rc::gen::inRange<int64_t>(0, 30)}});
    const DispatchPlan plan =
        plan_dispatch(AttnMaskSpec(slices, chunks, 30), {.cp = cp, .chunk_size = 1, .solver = DispatchSolver::kExact});
    int64_t ways = 1, best = INT64_MAX, largest = 0;
    for (int64_t i = 0; i < chunks; ++i) ways *= cp;
    for (int64_t way = 0; way < ways; ++way) {
      std::vector<int64_t> load(cp, 0);
      for (int64_t i = 0, rest = way; i < chunks; ++i, rest /= cp) load[rest % cp] += plan.chunk_areas[i];
      best = std::min(best, *std::max_element(load.begin(), load.end()));
    }
    for (int32_t rank = 0; rank < plan.size(); ++rank) largest = std::max(largest, plan.area_of(rank));
    RC_ASSERT(largest == best);
  });
}

}  // namespace
}  // namespace attnmux
