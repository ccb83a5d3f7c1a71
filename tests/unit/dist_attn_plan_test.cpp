#include "attnmux/dist_attn_plan.h"

#include <gtest/gtest.h>

#include <cmath>

#include "../common/deliver.h"
#include "../common/print_range.h"
#include "attnmux/mask_builders.h"
#include "attnmux/ranges.h"
#include "expect_error.h"
#include "published_masks.h"

namespace attnmux {
namespace {

using Ranges = std::vector<Range>;
using Sizes = std::vector<int64_t>;
using Ranks = std::vector<int32_t>;

TEST(DistAttnPlan, PublishedRemoteKeys) {
  int checked = 0;
  for (const nlohmann::json& json : published_cases()["dispatch"]) {
    const DistAttnPlan plan(published_mask(json), {.cp = json["cp"], .chunk_size = json["chunk"]}, {});
    for (int32_t rank = 0; rank < plan.dispatch().size(); ++rank) {
      EXPECT_EQ(plan.rank(rank)->remote_k, published_ranges(json["remote_k"][rank])) << json["name"] << " " << rank;
      ++checked;
    }
  }
  EXPECT_EQ(checked, 12);
}

TEST(DistAttnPlan, PublishedGroupCast) {
  int checked = 0;
  for (const nlohmann::json& json : published_cases()["dispatch"]) {
    if (!json.contains("group_cast")) continue;
    const nlohmann::json& expected = json["group_cast"];
    const DistAttnPlan plan(published_mask(json), {.cp = json["cp"], .chunk_size = json["chunk"]}, {});
    for (int32_t rank = 0; rank < plan.dispatch().size(); ++rank) {
      const GroupCastArgs& cast = plan.rank(rank)->cast;
      EXPECT_EQ(cast.input_splits, expected["input_splits"][rank].get<Sizes>()) << rank;
      EXPECT_EQ(cast.dst, expected["dst"][rank].get<std::vector<Ranks>>()) << rank;
      EXPECT_EQ(cast.output_splits, expected["output_splits"][rank].get<Sizes>()) << rank;
      EXPECT_EQ(cast.src, expected["src"][rank].get<Ranks>()) << rank;
      ++checked;
    }
  }
  EXPECT_EQ(checked, 4);
}

// The published exchange, delivered by the rule that this plan's arguments follow.
TEST(DistAttnPlan, PublishedExchange) {
  int checked = 0;
  for (const nlohmann::json& json : published_cases()["group_cast"]) {
    std::vector<GroupCastArgs> args;
    for (size_t rank = 0; rank < json["send"].size(); ++rank) {
      args.push_back({.input_splits = json["input_splits"][rank],
                      .dst = json["dst"][rank],
                      .output_splits = json["output_splits"][rank],
                      .src = json["src"][rank]});
      EXPECT_EQ(args.back().tokens_received(), json["receive"][rank].size());
    }
    EXPECT_EQ(deliver<int>(args, json["send"]), json["receive"].get<std::vector<std::vector<int>>>());
    EXPECT_EQ(args[0].tokens_sent(), 2 + 2 * 1 + 1);
    ++checked;
  }
  EXPECT_EQ(checked, 1);
}

TEST(DistAttnPlan, CausalOverTwoRanks) {
  const DistAttnPlan plan(causal_mask(8, 8), {.cp = 2, .chunk_size = 2}, {});
  // Chunk areas 3, 7, 11, 15.
  const std::shared_ptr<const RankPlan> first = plan.rank(0);
  EXPECT_EQ(first->queries, (Ranges{{0, 2}, {6, 8}}));
  EXPECT_EQ(first->remote_k, (Ranges{{2, 6}}));
  EXPECT_EQ(first->host.keys, first->queries);
  EXPECT_EQ(first->host.rows, (Ranges{{0, 4}}));
  EXPECT_EQ(first->host.mask, causal_mask(4, 4));
  ASSERT_EQ(first->stages.size(), 1u);
  EXPECT_EQ(first->stages[0].keys, first->remote_k);
  EXPECT_EQ(first->stages[0].cast, first->cast);
  EXPECT_EQ(first->stages[0].rows, (Ranges{{2, 4}})) << "the first chunk attends nothing of it";
  EXPECT_EQ(first->stages[0].mask, full_mask(2, 4));
  EXPECT_EQ(plan.rank(1)->remote_k, (Ranges{{0, 2}}));
  EXPECT_EQ(plan.tokens_moved(), 6);
  EXPECT_EQ(plan.redundant_tokens(), 0);
  EXPECT_EQ(plan.rank(0), first) << "derived once";
}

TEST(DistAttnPlan, StagesShareRemoteTokensOut) {
  const DistAttnPlan plan(causal_mask(8, 8), {.cp = 2, .chunk_size = 2}, {.forward = {.stages = 3}});
  EXPECT_EQ(plan.stages(), 3);
  Sizes tokens;
  for (const StagePlan& stage : plan.rank(0)->stages) tokens.push_back(count_tokens(stage.keys));
  EXPECT_EQ(tokens, (Sizes{1, 2, 1}));
  EXPECT_EQ(plan.rank(1)->stages.size(), 3u);
  EXPECT_EQ(plan.redundant_tokens(), 0);
}

// Early keys of a causal mask are attended most: a stage of them alone would be long to compute and short to fetch. And
// where every rank asked for the same keys first, their owners would send to all at once.
TEST(DistAttnPlan, StagesAreSamplesOfAllRemoteKeys) {
  const AttnMaskSpec masks[] = {causal_mask(65536, 65536), prefix_lm_mask({{.prefix = 20000, .rest = 45536}})};
  for (const AttnMaskSpec& mask : masks) {
    for (const double growth : {1.0, 2.0, 0.5}) {
      const int64_t stages = growth == 1 ? 16 : 4;
      const DistAttnPlan plan(mask, {.cp = 32, .chunk_size = 128}, {.forward = {.stages = stages, .growth = growth}});
      std::vector<int64_t> received(stages, 0), most_sent(stages, 0);
      for (const RankWork& work : plan.work()) {
        int64_t area = 0, tokens = 0;
        for (const StageWork& stage : work.stages) {
          area += stage.area;
          tokens += stage.tokens_received;
        }
        double share = 1, shares = 0;
        for (int64_t i = 0; i < stages; ++i) shares += std::pow(growth, static_cast<double>(i));
        for (int64_t i = 0; i < stages; ++i, share *= growth) {
          const StageWork& stage = work.stages[i];
          EXPECT_NEAR(static_cast<double>(stage.tokens_received), share / shares * static_cast<double>(tokens), 8);
          EXPECT_NEAR(static_cast<double>(stage.area) * shares / share / static_cast<double>(area), 1, 0.15) << i;
          received[i] += stage.tokens_received;
          most_sent[i] = std::max(most_sent[i], stage.tokens_sent);
        }
      }
      for (int64_t i = 0; i < stages; ++i) EXPECT_LE(most_sent[i] * 32, 1.3 * static_cast<double>(received[i])) << i;
    }
  }
}

TEST(DistAttnPlan, BackwardMayHaveStagesOfItsOwn) {
  const AttnMaskSpec mask = causal_mask(8, 8);
  const DispatchOptions options{.cp = 2, .chunk_size = 2};
  const DistAttnPlan alike(mask, options, {.forward = {.stages = 2}});
  EXPECT_EQ(alike.stages(Pass::kBackward), 2);
  EXPECT_EQ(&alike.rank(0)->of(Pass::kBackward), &alike.rank(0)->of(Pass::kForward));
  const DistAttnPlan plan(mask, options, {.forward = {.stages = 3}, .backward = {.stages = 2}});
  EXPECT_EQ(plan.stages(), 3);
  EXPECT_EQ(plan.stages(Pass::kBackward), 2);
  EXPECT_EQ(plan.redundant_tokens(), 0);
  Sizes tokens;
  for (const StagePlan& stage : plan.rank(0)->of(Pass::kBackward)) tokens.push_back(count_tokens(stage.keys));
  EXPECT_EQ(tokens, (Sizes{2, 2}));
  const DistAttnPlan other = plan.with_mask(full_mask(8, 8));
  EXPECT_EQ(other.stages(Pass::kBackward), 2);
}

TEST(DistAttnPlan, WithoutRemoteKeysThereIsNoStage) {
  const DistAttnPlan documents(varlen_mask({4, 4}, MaskType::kCausal), {.cp = 2, .chunk_size = 4},
                               {.forward = {.stages = 2}});
  EXPECT_EQ(documents.stages(), 0);
  EXPECT_TRUE(documents.rank(1)->stages.empty());
  EXPECT_EQ(documents.rank(1)->cast.dst, (std::vector<Ranks>{{}}));
  const DistAttnPlan alone(causal_mask(7, 9), {.cp = 1}, {.forward = {.stages = 2}});
  EXPECT_EQ(alone.stages(), 0);
  EXPECT_EQ(alone.rank(0)->host.mask, causal_mask(7, 9));
  const DistAttnPlan nothing(full_mask(0, 0), {.cp = 3}, {});
  EXPECT_EQ(nothing.tokens_moved(), 0);
  EXPECT_EQ(nothing.rank(2)->host.mask.total_q(), 0);
}

TEST(DistAttnPlan, HashTellsPlansApart) {
  const AttnMaskSpec mask = causal_mask(64, 64);
  const DispatchOptions options{.cp = 4, .chunk_size = 4};
  const Hash128 hash = DistAttnPlan(mask, options, {}).hash();
  EXPECT_EQ(DistAttnPlan(causal_mask(64, 64), options, {}).hash(), hash);
  EXPECT_NE(DistAttnPlan(full_mask(64, 64), options, {}).hash(), hash);
  EXPECT_NE(DistAttnPlan(mask, {.cp = 2, .chunk_size = 4}, {}).hash(), hash);
  EXPECT_NE(DistAttnPlan(mask, {.cp = 4, .chunk_size = 8}, {}).hash(), hash);
  EXPECT_NE(DistAttnPlan(mask, {.cp = 4, .chunk_size = 4, .pad = true}, {}).hash(), hash);
  EXPECT_NE(DistAttnPlan(mask, {.cp = 4, .chunk_size = 4, .solver = DispatchSolver::kSequential}, {}).hash(), hash);
  const Hash128 two = DistAttnPlan(mask, options, {.forward = {.stages = 2}}).hash();
  EXPECT_NE(two, hash);
  EXPECT_NE(DistAttnPlan(mask, options, {.forward = {.stages = 2, .growth = 2}}).hash(), two);
  EXPECT_NE(DistAttnPlan(mask, options, {.forward = {.stages = 2}, .backward = {.stages = 1}}).hash(), two);
  EXPECT_NE(DistAttnPlan(mask, options, {.forward = {.stages = 2}, .keep_remote_keys = true}).hash(), two);
}

TEST(DistAttnPlan, RefusesStagesAndRanksThatDoNotExist) {
  const DispatchOptions options{.cp = 2, .chunk_size = 4};
  expect_error(ErrorCode::kInvalidArgument, {"stages = 0"},
               [&] { DistAttnPlan(causal_mask(8, 8), options, {.forward = {.stages = 0}}); });
  expect_error(ErrorCode::kInvalidArgument, {"growth = 9", "[1/8, 8]"},
               [&] { DistAttnPlan(causal_mask(8, 8), options, {.forward = {.stages = 2, .growth = 9}}); });
  expect_error(ErrorCode::kInvalidArgument, {"64 stages", "fewer stages"},
               [&] { DistAttnPlan(causal_mask(8, 8), options, {.forward = {.stages = 64, .growth = 2}}); });
  expect_error(ErrorCode::kInvalidArgument, {"stages = 0"}, [&] {
    DistAttnPlan(causal_mask(8, 8), options, {.forward = {.stages = 2}, .backward = {.stages = 0}});
  });
  expect_error(ErrorCode::kInvalidArgument, {"keep_remote_keys", "3 beside 2"}, [&] {
    DistAttnPlan(causal_mask(8, 8), options,
                 {.forward = {.stages = 2}, .backward = {.stages = 3}, .keep_remote_keys = true});
  });
  expect_error(ErrorCode::kInvalidArgument, {"rank 2", "2 ranks"},
               [&] { DistAttnPlan(causal_mask(8, 8), options, {}).rank(2); });
}

}  // namespace
}  // namespace attnmux
