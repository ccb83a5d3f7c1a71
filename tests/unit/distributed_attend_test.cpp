#include "attnmux/distributed_attend.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/custom_function.h>

#include <atomic>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "attnmux/agreement.h"
#include "attnmux/dispatch.h"
#include "attnmux/error.h"
#include "attnmux/mask_builders.h"
#include "attnmux/step_context.h"
#include "expect_error.h"
#include "fake_backend.h"

namespace attnmux {
namespace {

using ::testing::AllOf;
using testing::FakeBackend;
using ::testing::HasSubstr;

constexpr int64_t kTokens = 24;
const CpGroupOptions kQuick{.deadline = std::chrono::seconds(20)};

struct Tensors {
  at::Tensor q, k, v;
};

class DistributedAttend : public ::testing::Test {
 protected:
  void SetUp() override {
    at::manual_seed(11);
    whole = {at::randn({kTokens, 4, 8}), at::randn({kTokens, 2, 8}), at::randn({kTokens, 2, 6})};
    dout = at::randn({kTokens, 4, 6});
  }

  DistAttnPlan plan(int64_t cp, int64_t stages = 2) const {
    return DistAttnPlan(mask, {.cp = cp, .chunk_size = 3}, {.forward = {.stages = stages}});
  }

  // A rank's own tokens, as leaves.
  Tensors share(const DistAttnPlan& of, int32_t rank) const {
    const auto own = [&](const at::Tensor& tensor) {
      return dispatch(tensor, of.dispatch(), rank, 0).detach().clone().requires_grad_();
    };
    return {own(whole.q), own(whole.k), own(whole.v)};
  }

  AttendResult attend_share(const AgreedPlan& agreed, const Tensors& own, const AttendOptions& options = {}) {
    return distributed_attend(fake, agreed, own.q, own.k, own.v, options, cache);
  }

  // Runs the body on so many ranks and returns the text of the error that ends them.
  std::string error_of(ErrorCode expected, int32_t ranks, const std::function<void(CpGroup&)>& body) {
    try {
      run_threads_group(ranks, kQuick, body);
    } catch (const Error& error) {
      EXPECT_EQ(to_string(error.code()), to_string(expected)) << error.what();
      return error.what();
    }
    ADD_FAILURE() << "no error was thrown";
    return "";
  }

  AttnMaskSpec mask = varlen_mask({7, 17}, MaskType::kCausal);
  Tensors whole;
  at::Tensor dout;
  std::shared_ptr<FakeBackend> fake = std::make_shared<FakeBackend>("fake");
  PreparedCache cache;
};

TEST_F(DistributedAttend, AutogradGivesWhatOneRankGives) {
  Tensors one{whole.q.clone().requires_grad_(), whole.k.clone().requires_grad_(), whole.v.clone().requires_grad_()};
  const AttendResult want = attend(fake, mask, one.q, one.k, one.v, {}, cache);
  want.out.backward(dout);
  for (const int64_t stages : {1, 3}) {
    const DistAttnPlan four = plan(4, stages);
    run_threads_group(4, kQuick, [&](CpGroup& group) {
      const AgreedPlan agreed(group, four);
      const Tensors own = share(four, group.rank());
      const AttendResult got = attend_share(agreed, own);
      const auto own_rows = [&](const at::Tensor& tensor) {
        return dispatch(tensor.detach(), four.dispatch(), group.rank(), 0);
      };
      EXPECT_TRUE(at::allclose(got.out, own_rows(want.out), 1e-5, 1e-5));
      EXPECT_TRUE(at::allclose(got.lse, own_rows(want.lse), 1e-5, 1e-5));
      EXPECT_FALSE(got.lse.requires_grad());
      got.out.backward(own_rows(dout));
      EXPECT_TRUE(at::allclose(own.q.grad(), own_rows(one.q.grad()), 1e-5, 1e-5));
      EXPECT_TRUE(at::allclose(own.k.grad(), own_rows(one.k.grad()), 1e-5, 1e-5));
      EXPECT_TRUE(at::allclose(own.v.grad(), own_rows(one.v.grad()), 1e-5, 1e-5));
    });
  }
}

// Keys travel again in backward, by its own stages, unless they were kept; gradients go home either way.
TEST_F(DistributedAttend, BackwardHasItsOwnStagesOrKeepsTheKeys) {
  const DispatchOptions dispatched{.cp = 4, .chunk_size = 3};
  const int64_t key_elements = plan(4).tokens_moved() * 2 * (8 + 6);
  std::vector<at::Tensor> first(4);
  for (const OverlapOptions& overlap :
       {OverlapOptions{.forward = {.stages = 2}}, OverlapOptions{.forward = {.stages = 1}, .backward = {.stages = 3}},
        OverlapOptions{.forward = {.stages = 3}, .keep_remote_keys = true}}) {
    const DistAttnPlan four(mask, dispatched, overlap);
    std::atomic<int64_t> sent_forward = 0, sent_backward = 0;
    run_threads_group(4, kQuick, [&](CpGroup& group) {
      const AgreedPlan agreed(group, four);
      const Tensors own = share(four, group.rank());
      const int64_t before = group.elements_sent();
      const at::Tensor loss = attend_share(agreed, own).out.sum();
      sent_forward += group.elements_sent() - before;
      loss.backward({}, /*retain_graph=*/true);
      sent_backward += group.elements_sent() - before;
      at::Tensor& one = first[group.rank()];
      if (!one.defined()) one = own.k.grad().clone();
      EXPECT_TRUE(at::allclose(own.k.grad(), one, 1e-5, 1e-6));
      loss.backward();  // again: kept keys are still there
      EXPECT_TRUE(at::allclose(own.k.grad(), one * 2, 1e-5, 1e-6));
    });
    sent_backward -= sent_forward;
    EXPECT_EQ(sent_forward, key_elements);
    EXPECT_EQ(sent_backward, (overlap.keep_remote_keys ? 1 : 2) * key_elements)
        << "gradients, and keys but for kept ones";
  }
}

TEST_F(DistributedAttend, LayoutsAreTheSameCall) {
  const DistAttnPlan two = plan(2);
  run_threads_group(2, kQuick, [&](CpGroup& group) {
    const AgreedPlan agreed(group, two);
    const Tensors own = share(two, group.rank());
    const AttendResult thd = attend_share(agreed, own);
    const AttendResult bshd =
        attend_share(agreed, {own.q.unsqueeze(0), own.k.unsqueeze(0), own.v.unsqueeze(0)}, {.layout = Layout::kBSHD});
    EXPECT_TRUE(at::equal(bshd.out.squeeze(0), thd.out));
    EXPECT_TRUE(at::equal(bshd.lse, thd.lse));
    bshd.out.sum().backward();
    const at::Tensor gradient = own.k.grad().clone();
    own.k.mutable_grad().reset();
    thd.out.sum().backward();
    EXPECT_TRUE(at::equal(own.k.grad(), gradient));
  });
}

// Hands no gradient on.
struct Forget : torch::autograd::Function<Forget> {
  static at::Tensor forward(torch::autograd::AutogradContext*, const at::Tensor& x) { return x.clone(); }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*,
                                                 const torch::autograd::variable_list&) {
    return {at::Tensor()};
  }
};

TEST_F(DistributedAttend, ARankWhoseLossForgetsTheCallStillTakesPart) {
  const DistAttnPlan two = plan(2);
  run_threads_group(2, kQuick, [&](CpGroup& group) {
    const AgreedPlan agreed(group, two);
    const Tensors own = share(two, group.rank());
    const AttendResult result = attend_share(agreed, own);
    const at::Tensor out = group.rank() == 1 ? Forget::apply(result.out) : result.out;
    out.sum().backward();
    EXPECT_TRUE(own.k.grad().defined());
    EXPECT_GT(at::abs(own.v.grad()).sum().item<double>(), 0) << "rank " << group.rank();
  });
}

TEST_F(DistributedAttend, AnotherMaskFindsTheTokensWhereThePlanPutThem) {
  const AttnMaskSpec window = sliding_window_mask({7, 17}, {.left = 3, .right = 0});
  const at::NoGradGuard no_gradients;
  const at::Tensor want = attend(fake, window, whole.q, whole.k, whole.v, {}, cache).out;
  const DistAttnPlan three = plan(3), windowed = three.with_mask(window);
  EXPECT_NE(windowed.hash(), three.hash());
  run_threads_group(3, kQuick, [&](CpGroup& group) {
    const at::Tensor got = attend_share(AgreedPlan(group, windowed), share(three, group.rank())).out;
    EXPECT_TRUE(at::allclose(got, dispatch(want, three.dispatch(), group.rank(), 0), 1e-5, 1e-5));
  });
  expect_error(ErrorCode::kInvalidArgument, {"9 x 9", "24 x 24"}, [&] { three.with_mask(causal_mask(9, 9)); });
}

TEST_F(DistributedAttend, ARetainedGraphRunsAgain) {
  const DistAttnPlan two = plan(2);
  run_threads_group(2, kQuick, [&](CpGroup& group) {
    const AgreedPlan agreed(group, two);
    const Tensors own = share(two, group.rank());
    const at::Tensor loss = attend_share(agreed, own).out.sum();
    loss.backward({}, /*retain_graph=*/true);
    const at::Tensor once = own.k.grad().clone();
    loss.backward();
    EXPECT_TRUE(at::equal(own.k.grad(), once * 2));
  });
}

TEST_F(DistributedAttend, SendsEachTokenOnceAndNothingElse) {
  const DistAttnPlan four = plan(4, /*stages=*/2);
  std::atomic<int64_t> sent = 0;
  run_threads_group(4, kQuick, [&](CpGroup& group) {
    const AgreedPlan agreed(group, four);
    const Tensors own = share(four, group.rank());
    const int64_t before = group.elements_sent();
    const at::NoGradGuard no_gradients;
    attend_share(agreed, own);
    sent += group.elements_sent() - before;
  });
  EXPECT_GT(sent, 0);
  EXPECT_EQ(sent, four.tokens_moved() * 2 * (8 + 6));
}

TEST_F(DistributedAttend, RanksThatPlanDifferentlyAreNamedBeforeAnyExchange) {
  std::mutex mutex;
  std::vector<std::string> texts;
  const std::string thrown = error_of(ErrorCode::kRankDisagreement, 3, [&](CpGroup& group) {
    const DistAttnPlan mine(group.rank() == 1 ? causal_mask(kTokens, kTokens) : mask, {.cp = 3, .chunk_size = 3}, {});
    try {
      const AgreedPlan agreed(group, mine);
      ADD_FAILURE() << "rank " << group.rank() << " goes on";
    } catch (const Error& error) {
      const std::lock_guard lock(mutex);
      texts.push_back(error.what());
      throw;
    }
  });
  ASSERT_EQ(texts.size(), 3u);
  EXPECT_EQ(texts[0], texts[1]);
  EXPECT_EQ(texts[0], texts[2]);
  EXPECT_THAT(texts[0], AllOf(HasSubstr("attention plan"), HasSubstr("on rank 0, 2"), HasSubstr("on rank 1")));
  EXPECT_EQ(fake->forwards, 0);
}

TEST_F(DistributedAttend, APlanForOtherRanksIsRefused) {
  const std::string text =
      error_of(ErrorCode::kInvalidArgument, 2, [&](CpGroup& group) { const AgreedPlan agreed(group, plan(4)); });
  EXPECT_THAT(text, HasSubstr("4 ranks in a group of 2"));
}

TEST_F(DistributedAttend, OtherTokensThanThePlansAreNamed) {
  const DistAttnPlan two = plan(2);
  const std::string text = error_of(ErrorCode::kInvalidArgument, 2, [&](CpGroup& group) {
    const AgreedPlan agreed(group, two);
    attend_share(agreed, whole);
  });
  EXPECT_THAT(text, AllOf(HasSubstr("q tokens = 24, expected 12"), HasSubstr("the plan")));
}

TEST_F(DistributedAttend, TheBackendIsAskedAboutTheMasksOfParts) {
  AttentionRequest asked;
  fake->refuse = [&](const AttentionRequest& request) -> std::vector<Reason> {
    static std::mutex mutex;
    const std::lock_guard lock(mutex);
    asked = request;
    return {{.code = ReasonCode::kCpSize, .got = "2", .want = "1", .hint = "choose another"}};
  };
  const DistAttnPlan two = plan(2);
  const std::string text = error_of(ErrorCode::kUnsupported, 2, [&](CpGroup& group) {
    const AgreedPlan agreed(group, two);
    attend_share(agreed, share(two, group.rank()));
  });
  EXPECT_THAT(text, AllOf(HasSubstr("refuses"), HasSubstr("cp_size: got 2, want 1")));
  EXPECT_EQ(asked.cp_size, 2);
  EXPECT_TRUE(asked.masks.has(MaskFamily::kArbitrary) && asked.cross_lengths);
  EXPECT_FALSE(asked.empty_rows) << "a part has those rows that attend some of its keys";
  EXPECT_EQ(asked.max_tokens, kTokens);
}

TEST_F(DistributedAttend, AFailureOfOneRankEndsAllAndNamesIt) {
  const DistAttnPlan three = plan(3);
  for (const bool backward : {false, true}) {
    std::atomic<int> others = 0;
    const std::string text = error_of(ErrorCode::kDeviceError, 3, [&](CpGroup& group) {
      auto backend = std::make_shared<FakeBackend>("fake");
      const auto fail = [] { throw Error(ErrorCode::kDeviceError, "out of luck"); };
      if (group.rank() == 2 && !backward) backend->spoil_forward = [&](ForwardResult&) { fail(); };
      if (group.rank() == 2 && backward) backend->spoil_backward = [&](BackwardResult&) { fail(); };
      const AgreedPlan agreed(group, three);
      const Tensors own = share(three, group.rank());
      PreparedCache own_cache;
      try {
        distributed_attend(backend, agreed, own.q, own.k, own.v, {}, own_cache).out.sum().backward();
        group.barrier();
      } catch (const Error& error) {
        if (group.rank() == 2) throw;
        EXPECT_EQ(error.code(), ErrorCode::kCommError) << error.what();
        EXPECT_THAT(error.what(), HasSubstr("rank 2"));
        ++others;
        throw;
      }
    });
    EXPECT_THAT(text, AllOf(HasSubstr("rank 2 of 3"), HasSubstr("out of luck")));
    EXPECT_EQ(others, 2);
  }
}

// Steps of a model with one attention module, planned for `cp_size` ranks.
class DistributedStep : public DistributedAttend {
 protected:
  static constexpr const char* kModule = "model.layers.0.self_attn";

  std::shared_ptr<const SelectionTable> table(int64_t cp_size, MaskFamily family = MaskFamily::kVarlenCausal) {
    PluginRegistry registry;
    registry.add("fake", fake, {});
    const AttentionRequest request{.masks = {family},
                                   .heads_q = 4,
                                   .heads_kv = 2,
                                   .head_dim = 8,
                                   .head_dim_v = 6,
                                   .max_tokens = kTokens,
                                   .training = true,
                                   .cp_size = cp_size};
    return std::make_shared<const SelectionTable>(
        select({.rules = {{.match = "**", .backend = "fake", .origin = "test"}}},
               {{.path = kModule, .role = "language", .mask_key = "language", .request = request}}, registry));
  }

  // One step of two ranks.
  void run_step(const std::shared_ptr<const SelectionTable>& planned, const DistAttnPlan& of,
                const std::function<void(const StepContext&)>& look = {}) {
    run_threads_group(2, kQuick, [&](CpGroup& group) {
      StepContext step(planned, std::make_shared<PreparedCache>(), {.training = true});
      step.arm("language", AgreedPlan(group, of));
      const Tensors own = share(of, group.rank());
      step.attend(kModule, own.q, own.k, own.v, {}).out.sum().backward();
      step.finish();
      if (look && group.rank() == 1) look(step);
    });
  }
};

TEST_F(DistributedStep, TheLedgerKnowsTheWholeMask) {
  run_step(table(2), plan(2), [&](const StepContext& step) {
    const std::vector<LedgerEntry> entries = step.ledger().entries();
    ASSERT_EQ(entries.size(), 1u);
    EXPECT_EQ(entries[0].mask, mask.hash());
    EXPECT_EQ(entries[0].forward, 1);
    EXPECT_EQ(entries[0].backward, 1);
    EXPECT_EQ(step.mask("language"), mask);
  });
}

TEST_F(DistributedStep, ATableForOneRankTakesNoGroup) {
  expect_error(ErrorCode::kOutOfEnvelope, {kModule, "cp_size: got 2, want 1"}, [&] { run_step(table(1), plan(2)); });
}

TEST_F(DistributedStep, TheWholeMaskMustBeOfThePlannedFamily) {
  mask = sliding_window_mask({kTokens}, {.left = 3, .right = 0});
  expect_error(ErrorCode::kOutOfEnvelope, {kModule, "mask.type"}, [&] { run_step(table(2), plan(2)); });
  run_step(table(2, MaskFamily::kSlidingWindow), plan(2));
}

TEST_F(DistributedStep, ABackendThatCannotIsRefusedWhenTheModelIsBuilt) {
  fake->refuse = [](const AttentionRequest& request) {
    std::vector<Reason> reasons;
    if (request.masks.has(MaskFamily::kArbitrary))
      reasons.push_back({ReasonCode::kMaskType, "arbitrary", "varlen", ""});
    if (request.cross_lengths) reasons.push_back({ReasonCode::kMaskCrossLengths, "more keys", "as many", ""});
    return reasons;
  };
  table(1);
  expect_error(ErrorCode::kUnsupported, {kModule, "mask.type", "mask.cross_lengths"}, [&] { table(2); });
}

TEST(Agreement, HoldsWhereAllRanksAgree) {
  run_threads_group(3, kQuick, [](CpGroup& group) { expect_agreement(group, {1, 2}, "x", "y"); });
  expect_agreement(*single_rank_group(), {1, 2}, "x", "y");
}

}  // namespace
}  // namespace attnmux
