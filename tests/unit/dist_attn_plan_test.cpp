#include "attnmux/dist_attn_plan.h"

#include <gtest/gtest.h>

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
  EXPECT_EQ(first->host.mask, causal_mask(4, 4));
  ASSERT_EQ(first->stages.size(), 1u);
  EXPECT_EQ(first->stages[0].keys, first->remote_k);
  EXPECT_EQ(first->stages[0].cast, first->cast);
  EXPECT_EQ(first->stages[0].mask, AttnMaskSpec({{{2, 4}, {0, 4}, MaskType::kFull}}, 4, 4));
  EXPECT_EQ(plan.rank(1)->remote_k, (Ranges{{0, 2}}));
  EXPECT_EQ(plan.tokens_moved(), 6);
  EXPECT_EQ(plan.redundant_tokens(), 0);
  EXPECT_EQ(plan.rank(0), first) << "derived once";
}

TEST(DistAttnPlan, StagesShareRemoteTokensOutEvenly) {
  const DistAttnPlan plan(causal_mask(8, 8), {.cp = 2, .chunk_size = 2}, {.stages = 3});
  EXPECT_EQ(plan.stages(), 3);
  Sizes tokens;
  for (const StagePlan& stage : plan.rank(0)->stages) tokens.push_back(count_tokens(stage.keys));
  EXPECT_EQ(tokens, (Sizes{1, 1, 2}));
  EXPECT_EQ(plan.rank(1)->stages.size(), 3u);
  EXPECT_EQ(plan.redundant_tokens(), 0);
}

TEST(DistAttnPlan, WithoutRemoteKeysThereIsNoStage) {
  const DistAttnPlan documents(varlen_mask({4, 4}, MaskType::kCausal), {.cp = 2, .chunk_size = 4}, {.stages = 2});
  EXPECT_EQ(documents.stages(), 0);
  EXPECT_TRUE(documents.rank(1)->stages.empty());
  EXPECT_EQ(documents.rank(1)->cast.dst, (std::vector<Ranks>{{}}));
  const DistAttnPlan alone(causal_mask(7, 9), {.cp = 1}, {.stages = 2});
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
  EXPECT_NE(DistAttnPlan(mask, options, {.stages = 2}).hash(), hash);
}

TEST(DistAttnPlan, RefusesStagesAndRanksThatDoNotExist) {
  const DispatchOptions options{.cp = 2, .chunk_size = 4};
  expect_error(ErrorCode::kInvalidArgument, {"stages = 0"},
               [&] { DistAttnPlan(causal_mask(8, 8), options, {.stages = 0}); });
  expect_error(ErrorCode::kInvalidArgument, {"rank 2", "2 ranks"},
               [&] { DistAttnPlan(causal_mask(8, 8), options, {}).rank(2); });
}

}  // namespace
}  // namespace attnmux
