#include "attnmux/dispatch.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "attnmux/mask_builders.h"
#include "expect_error.h"

namespace attnmux::testing {
namespace {

struct Shape {
  const char* name;
  int64_t total, cp, chunk_size;
  bool pad;
};
void PrintTo(const Shape& shape, std::ostream* out) { *out << shape.name; }

class Dispatch : public ::testing::TestWithParam<Shape> {
 protected:
  DispatchPlan plan() const {
    const Shape& shape = GetParam();
    return plan_dispatch(causal_mask(shape.total, shape.total),
                         {.cp = shape.cp, .chunk_size = shape.chunk_size, .pad = shape.pad});
  }
  static int32_t ranks() { return static_cast<int32_t>(GetParam().cp); }
  static int64_t total() { return GetParam().total; }
};

TEST_P(Dispatch, UndispatchInverts) {
  const DispatchPlan plan = this->plan();
  const at::Tensor ids = at::arange(total(), at::kLong) + 1000;
  const at::Tensor embeds = at::sin(at::arange(total() * 6, at::kDouble)).view({total(), 2, 3}).transpose(1, 2);
  run_threads_group(ranks(), {}, [&](CpGroup& group) {
    const at::Tensor mine = dispatch(ids, plan, group.rank(), -100);
    EXPECT_EQ(mine.scalar_type(), at::kLong);
    int64_t at = 0;
    for (const Range& range : plan.ranges_of(group.rank())) {
      for (int64_t token = range.begin; token < range.end; ++token, ++at) {
        EXPECT_EQ(mine[at].item<int64_t>(), token < total() ? 1000 + token : -100) << "token " << token;
      }
    }
    EXPECT_EQ(mine.size(0), at);
    EXPECT_TRUE(at::equal(undispatch(mine, plan, group), ids));
    EXPECT_TRUE(at::equal(undispatch(dispatch(embeds, plan, group.rank(), 0), plan, group), embeds));
  });
}

// Each rank weighs its own tokens: summed over ranks the gradient of the whole tensor is the weights.
TEST_P(Dispatch, GradientsOfAllRanksAddUp) {
  const DispatchPlan plan = this->plan();
  const at::Tensor weights = at::cos(at::arange(total() * 2, at::kDouble)).view({total(), 2});
  std::vector<at::Tensor> grads(ranks());
  run_threads_group(ranks(), {}, [&](CpGroup& group) {
    at::Tensor x = at::ones({total(), 2}, at::kDouble).requires_grad_();
    (dispatch(x, plan, group.rank(), 7) * dispatch(weights, plan, group.rank(), 5)).sum().backward();
    grads[group.rank()] = x.grad();
  });
  at::Tensor sum = at::zeros_like(weights);
  for (const at::Tensor& grad : grads) sum += grad;
  EXPECT_TRUE(at::equal(sum, weights));
}

// Each rank weighs the whole tensor by weights of its own: a token's gradient is the sum of them, padding's is zero.
TEST_P(Dispatch, UndispatchSumsTheGradientsOfAllRanks) {
  const DispatchPlan plan = this->plan();
  const auto weights = [&](int64_t rank) { return (at::arange(total(), at::kDouble) + 1) * (rank + 1); };
  run_threads_group(ranks(), {}, [&](CpGroup& group) {
    at::Tensor local = at::ones({plan.tokens_of(group.rank())}, at::kDouble).requires_grad_();
    const at::Tensor all = undispatch(local, plan, group);
    EXPECT_TRUE(all.requires_grad());
    (all * weights(group.rank())).sum().backward();
    at::Tensor sum = at::zeros({total()}, at::kDouble);
    for (int32_t rank = 0; rank < ranks(); ++rank) sum += weights(rank);
    EXPECT_TRUE(at::equal(local.grad(), dispatch(sum, plan, group.rank(), 0))) << "rank " << group.rank();
  });
}

// Uneven shares, one rank with none; every rank weighs the whole by weights of its own.
TEST(GatherTokens, SharesOfAnySizeComeTogetherAndGradientsGoHome) {
  const std::vector<std::vector<Range>> owned = {{{0, 3}, {8, 9}}, {}, {{3, 8}}};
  const at::Tensor x = at::arange(18, at::kDouble).view({9, 2});
  run_threads_group(3, {}, [&](CpGroup& group) {
    std::vector<at::Tensor> parts{at::empty({0, 2}, at::kDouble)};
    for (const Range& range : owned[group.rank()]) parts.push_back(x.slice(0, range.begin, range.end));
    const at::Tensor local = at::cat(parts).requires_grad_();
    const at::Tensor all = gather_tokens(local, owned, group);
    EXPECT_TRUE(at::equal(all, x));
    (all * x * (group.rank() + 1)).sum().backward();
    EXPECT_TRUE(at::equal(local.grad(), 6 * local.detach())) << "rank " << group.rank();
    expect_error(ErrorCode::kInvalidArgument, {"gather_tokens", "tokens of 2 ranks in a group of 3"}, [&] {
      gather_tokens(local, {{{0, 1}}, {}}, group);
    });
    expect_error(ErrorCode::kInvalidArgument, {"gather_tokens: rank", "tensor 7"},
                 [&] { gather_tokens(at::zeros({7}), owned, group); });
  });
}

INSTANTIATE_TEST_SUITE_P(Cases, Dispatch,
                         ::testing::Values(Shape{"one_rank", 10, 1, 4, false}, Shape{"even", 64, 4, 8, false},
                                           Shape{"uneven", 37, 3, 4, false}, Shape{"padded", 37, 3, 4, true},
                                           Shape{"ranks_without_tokens", 10, 4, 8, false},
                                           Shape{"ranks_of_padding_alone", 10, 4, 8, true}),
                         [](const auto& info) { return info.param.name; });

TEST(Dispatch, OneRankGetsTheTensorItself) {
  const DispatchPlan plan = plan_dispatch(causal_mask(10, 10), {.cp = 1, .chunk_size = 4, .pad = true});
  const at::Tensor x = at::ones({10});
  EXPECT_TRUE(dispatch(x, plan, 0, 0).is_same(x));
  EXPECT_TRUE(undispatch(x, plan, *single_rank_group()).is_same(x));
}

TEST(Dispatch, WhatDoesNotFitIsRefused) {
  const DispatchPlan plan = plan_dispatch(causal_mask(10, 10), {.cp = 2, .chunk_size = 4});
  const auto refuses = [](const std::vector<std::string>& text, const std::function<void()>& call) {
    expect_error(ErrorCode::kInvalidArgument, text, call);
  };
  refuses({"dispatch: rank 2 of a plan for 2 ranks"}, [&] { dispatch(at::ones({10}), plan, 2, 0); });
  refuses({"dispatch", "10 tokens", "tensor 9"}, [&] { dispatch(at::ones({9}), plan, 0, 0); });
  refuses({"dispatch", "tensor none"}, [&] { dispatch(at::ones({}), plan, 0, 0); });
  refuses({"plan for 2 ranks in a group of 1"}, [&] { undispatch(at::ones({6}), plan, *single_rank_group()); });
  run_threads_group(2, {}, [&](CpGroup& group) {
    refuses({"undispatch: rank " + std::to_string(group.rank()), "tensor 3"},
            [&] { undispatch(at::ones({3}), plan, group); });
  });
  at::Tensor x = at::ones({10}, at::kFloat).requires_grad_();
  refuses({"dispatch", "create_graph = false"},
          [&] { dispatch(x, plan, 0, 0).sum().backward({}, /*retain_graph=*/true, /*create_graph=*/true); });
}

}  // namespace
}  // namespace attnmux::testing
