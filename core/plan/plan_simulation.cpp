#include "attnmux/plan_simulation.h"

#include <algorithm>

#include "../mask/trapezoid.h"
#include "attnmux/ranges.h"
#include "local_mask.h"

namespace attnmux {
namespace {

constexpr int64_t kChunksPerRank = 8;
constexpr int64_t kSmallestChunk = 64;
constexpr Pass kPasses[] = {Pass::kForward, Pass::kBackward};

// Sum over the piece's rows of min(edge, key).
int64_t sum_below(const Trapezoid& piece, const Edge& edge, int64_t key) {
  const int64_t height = piece.height();
  const int64_t first = edge.at(piece.q0);
  if (!edge.moving) return height * std::min(first, key);
  const int64_t below = std::clamp<int64_t>(key - first, 0, height);  // rows whose edge has not reached the key
  return below * first + below * (below - 1) / 2 + (height - below) * key;
}

int64_t pairs_below(const Trapezoid& piece, int64_t key) {
  return sum_below(piece, piece.right, key) - sum_below(piece, piece.left, key);
}

// Rank r of n owns blocks r and 2n - 1 - r.
class ZigzagShards {
 public:
  explicit ZigzagShards(int64_t ranks) : ranks_(ranks) {}
  int64_t begin(int64_t block, int64_t total) const { return block * total / (2 * ranks_); }
  int64_t owner(int64_t block) const { return block < ranks_ ? block : 2 * ranks_ - 1 - block; }
  int64_t size(int64_t rank, int64_t total) const {
    const int64_t mirrored = 2 * ranks_ - 1 - rank;
    return begin(rank + 1, total) - begin(rank, total) + begin(mirrored + 1, total) - begin(mirrored, total);
  }
  std::vector<Range> ranges(int64_t rank, int64_t total) const {
    std::vector<Range> ranges;
    for (const int64_t block : {rank, 2 * ranks_ - 1 - rank}) {
      ranges.push_back({begin(block, total), begin(block + 1, total)});
    }
    return unite(std::move(ranges));
  }

 private:
  int64_t ranks_;
};

// The first row of the piece whose edge is at `key` or beyond; the last row's successor where none is.
int64_t first_row_from(const Trapezoid& piece, const Edge& edge, int64_t key) {
  const int64_t first = edge.at(piece.q0);
  if (!edge.moving) return first >= key ? piece.q0 : piece.q1;
  return piece.q0 + std::clamp<int64_t>(key - first, 0, piece.height());
}

// What is computed for these rows with each rank's keys.
std::vector<PartSize> work_by_owner(const std::vector<Trapezoid>& rows, const ZigzagShards& shards, int64_t ranks,
                                    int64_t total_k) {
  std::vector<PartSize> work(ranks);
  std::vector<std::vector<Range>> attending(ranks);
  for (const Trapezoid& piece : rows) {
    const Range hull = piece.key_hull();
    int64_t block = hull.begin * 2 * ranks / total_k;  // at most the block of the first key: blocks are rounded down
    int64_t before = 0;
    for (; block < 2 * ranks && shards.begin(block, total_k) < hull.end; ++block) {
      const int64_t end = std::min(shards.begin(block + 1, total_k), hull.end), owner = shards.owner(block);
      const int64_t below = pairs_below(piece, end);
      work[owner].area += below - before;
      before = below;
      attending[owner].push_back({first_row_from(piece, piece.right, shards.begin(block, total_k) + 1),
                                  first_row_from(piece, piece.left, end)});
    }
  }
  for (int64_t owner = 0; owner < ranks; ++owner) {
    work[owner].rows = count_tokens(unite(std::move(attending[owner])));
    work[owner].keys = shards.size(owner, total_k);
  }
  return work;
}

struct RankStep {
  double seconds = 0;
  double computed = 0;
};

// What one rank sends on in one hop of the ring: keys, backward their gradients, too.
double moved_s(int64_t tokens, const CostModel& model, const AttentionSize& shape, Pass pass) {
  const double keys = model.exchange_s(tokens, shape, Cargo::kKeys);
  if (pass == Pass::kForward || tokens == 0) return keys;
  return keys + model.exchange_s(tokens, shape, Cargo::kGradients) - model.latency_s;  // side by side
}

// Like ours, it computes and merges only rows that attend keys at hand.
RankStep ring_step(const std::vector<PartSize>& work, int64_t rank, int64_t shard, const CostModel& model,
                   const AttentionSize& shape) {
  const int64_t ranks = std::ssize(work);
  RankStep step;
  for (const Pass pass : kPasses) {
    const double hop = ranks > 1 ? moved_s(shard, model, shape, pass) : 0;
    for (int64_t i = 0; i < ranks; ++i) {
      const PartSize& part = work[(rank - i + ranks) % ranks];
      const double calc = model.part_s(part, shape, pass);
      step.computed += calc;
      step.seconds += i + 1 < ranks ? std::max(hop, calc) : calc;
    }
    if (pass == Pass::kBackward && ranks > 1) step.seconds += model.exchange_s(shard, shape, Cargo::kGradients);
  }
  return step;
}

RankStep all_gather_step(const PartSize& part, int64_t others, const CostModel& model, const AttentionSize& shape) {
  RankStep step;
  for (const Pass pass : kPasses) {
    const double calc = model.part_s(part, shape, pass);
    step.computed += calc;
    step.seconds += model.exchange_s(others, shape, Cargo::kKeys) + calc;
    if (pass == Pass::kBackward) step.seconds += model.exchange_s(others, shape, Cargo::kGradients);
  }
  return step;
}

void keep_slowest(const RankStep& rank, SchemeStep* step) {
  if (rank.seconds <= step->step_s) return;
  step->step_s = rank.seconds;
  step->exposed_s = rank.seconds - rank.computed;
}

// Tokens a chunk, so that each rank has as many chunks as any other: as many as it takes, at least 8, but fewer where
// they would be shorter than 64 tokens.
int64_t even_chunks(int64_t tokens, const DispatchOptions& dispatch) {
  const auto chunk = [&](int64_t of_rank) { return (tokens + dispatch.cp * of_rank - 1) / (dispatch.cp * of_rank); };
  const int64_t needed = (tokens + dispatch.cp * dispatch.chunk_size - 1) / (dispatch.cp * dispatch.chunk_size);
  const int64_t longest = std::max<int64_t>(tokens / (dispatch.cp * kSmallestChunk), 1);
  return std::max<int64_t>(chunk(std::min(std::max(needed, kChunksPerRank), longest)), 1);
}

SchemeStep planned(const AttnMaskSpec& mask, DispatchOptions dispatch, const OverlapOptions& overlap,
                   const CostModel& model, const AttentionSize& shape) {
  dispatch.chunk_size = even_chunks(mask.total_q(), dispatch);
  const DistAttnPlan plan(mask, dispatch, choose_overlap(mask, dispatch, overlap, model, shape));
  const Prediction prediction = predict(plan, model, shape);
  SchemeStep step{.scheme = "attnmux",
                  .ranks = dispatch.cp,
                  .chunk_size = dispatch.chunk_size,
                  .stages = plan.stages(),
                  .growth = plan.overlap().forward.growth,
                  .backward_stages = plan.stages(Pass::kBackward),
                  .backward_growth = plan.overlap().backward.growth,
                  .balance = plan.dispatch().balance(),
                  .step_s = prediction.step_s,
                  .exposed_s = prediction.exposed_s};
  for (const RankWork& rank : plan.work()) {
    int64_t tokens = 0;
    for (const StageWork& stage : rank.stages) tokens += stage.tokens_received;
    step.tokens_received = std::max(step.tokens_received, tokens);
  }
  return step;
}

}  // namespace

std::vector<SchemeStep> simulate_schemes(const AttnMaskSpec& mask, int64_t ranks, DispatchOptions dispatch,
                                         const OverlapOptions& overlap, const CostModel& model,
                                         const AttentionSize& shape) {
  dispatch.cp = ranks;
  std::vector<SchemeStep> steps{planned(mask, dispatch, overlap, model, shape),
                                {.scheme = "ring", .ranks = ranks, .stages = ranks - 1, .backward_stages = ranks - 1},
                                {.scheme = "all-gather", .ranks = ranks, .stages = 1, .backward_stages = 1}};

  const MaskRows mask_rows(mask);
  const ZigzagShards shards(ranks);
  int64_t longest_shard = 0, largest_area = 0;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    longest_shard = std::max(longest_shard, shards.size(rank, mask.total_k()));
  }
  for (int64_t rank = 0; rank < ranks; ++rank) {
    const std::vector<Range> queries = shards.ranges(rank, mask.total_q());
    const int64_t rows = count_tokens(queries);
    const std::vector<PartSize> work = work_by_owner(mask_rows.of(queries), shards, ranks, mask.total_k());
    int64_t area = 0;
    for (const PartSize& part : work) area += part.area;
    largest_area = std::max(largest_area, area);
    const int64_t others = mask.total_k() - shards.size(rank, mask.total_k());
    for (SchemeStep* step : {&steps[1], &steps[2]}) step->tokens_received = std::max(step->tokens_received, others);
    keep_slowest(ring_step(work, rank, longest_shard, model, shape), &steps[1]);
    keep_slowest(all_gather_step({.area = area, .rows = rows, .keys = mask.total_k()}, others, model, shape),
                 &steps[2]);
  }

  const double one_rank = one_rank_s(mask, model, shape);
  for (SchemeStep& step : steps) {
    if (step.scheme != "attnmux" && mask.area() > 0) {
      step.balance = static_cast<double>(largest_area) * static_cast<double>(ranks) / static_cast<double>(mask.area());
    }
    step.speedup = step.step_s > 0 ? one_rank / step.step_s : 1;
    step.efficiency = step.speedup / static_cast<double>(ranks);
  }
  return steps;
}

}  // namespace attnmux
