#include "attnmux/step_context.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "attnmux/error.h"
#include "attnmux/mask_builders.h"
#include "core/attention/step_check.h"
#include "fake_backend.h"

namespace attnmux {
namespace {

using ::testing::AllOf;
using testing::FakeBackend;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kFirst = "model.layers.0.self_attn";
constexpr const char* kSecond = "model.layers.1.self_attn";
constexpr const char* kVision = "vision.0.attn";

class Step : public ::testing::Test {
 protected:
  Step() {
    registry.add("magi", magi, {});
    AttentionRequest text{
        .masks = {MaskFamily::kVarlenCausal}, .heads_q = 2, .heads_kv = 2, .head_dim = 4, .training = true};
    AttentionRequest vision{.masks = {MaskFamily::kFull}, .heads_q = 2, .heads_kv = 2, .head_dim = 4};
    table = std::make_shared<SelectionTable>(
        select({.rules = {{.match = "**", .backend = "magi", .origin = "test"}}},
               {{.path = kFirst, .role = "language", .mask_key = "language", .request = text},
                {.path = kSecond, .role = "language", .mask_key = "language", .request = text},
                {.path = kVision, .role = "vision", .mask_key = "vision", .request = vision}},
               registry));
  }

  static at::Tensor tokens(int64_t count, bool grad = true) {
    at::Tensor x = at::randn({count, 2, 4});
    return grad ? x.requires_grad_() : x;
  }

  at::Tensor call(StepContext& step, const char* module, const at::Tensor& x) {
    return step.attend(module, x, x, x, {}).out;
  }

  template <class Call>
  std::string error_of(ErrorCode expected, const Call& call) {
    try {
      call();
    } catch (const Error& error) {
      EXPECT_EQ(to_string(error.code()), to_string(expected)) << error.what();
      return error.what();
    }
    ADD_FAILURE() << "no error was thrown";
    return "";
  }

  std::string finish_error(StepContext& step) {
    return error_of(ErrorCode::kMaskNotConsumed, [&] { step.finish(); });
  }

  // Text on stderr while `action` runs.
  template <class Action>
  std::string logged(const Action& action) {
    ::testing::internal::CaptureStderr();
    action();
    return ::testing::internal::GetCapturedStderr();
  }

  std::shared_ptr<FakeBackend> magi = std::make_shared<FakeBackend>("magi");
  PluginRegistry registry;
  std::shared_ptr<SelectionTable> table;
  std::shared_ptr<PreparedCache> cache = std::make_shared<PreparedCache>();
  AttnMaskSpec mask = varlen_mask({3, 5}, MaskType::kCausal);
};

TEST_F(Step, Sel9AStepWhoseModulesAllRanFinishes) {
  StepContext step(table, cache, {.training = true});
  step.arm("language", mask);
  call(step, kSecond, call(step, kFirst, tokens(8))).sum().backward();
  step.finish();
  const std::vector<LedgerEntry> entries = step.ledger().entries();
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0].module, kFirst);
  EXPECT_EQ(entries[0].backend, "magi");
  EXPECT_EQ(entries[0].mask, mask.hash());
  EXPECT_EQ(entries[0].forward, 1);
  EXPECT_EQ(entries[0].backward, 1);
  EXPECT_EQ(step.mask("language"), mask);
}

TEST_F(Step, Sel9ASkippedModuleFailsTheStep) {
  StepContext step(table, cache, {.training = true});
  step.arm("language", mask);
  call(step, kFirst, tokens(8)).sum().backward();
  const std::string text = finish_error(step);
  EXPECT_THAT(
      text, AllOf(HasSubstr(std::string(kSecond) + ": planned backend \"magi\" with mask "),
                  HasSubstr("1 forward, 1 backward; executed nothing"), HasSubstr("skipped"), Not(HasSubstr(kFirst))));
}

TEST_F(Step, Sel9AModuleThatComputesOutsideTheStepFailsIt) {
  StepContext step(table, cache, {});
  step.arm("language", mask);
  const at::Tensor x = tokens(8, /*grad=*/false);
  call(step, kFirst, x);
  attend(magi, mask, x, x, x, {.module = kSecond}, *cache);  // right mask, right backend, but nobody saw it
  EXPECT_THAT(finish_error(step), AllOf(HasSubstr(kSecond), HasSubstr("without step.attend()")));
}

TEST_F(Step, Sel9AModuleThatRunsTwiceFailsTheStep) {
  StepContext step(table, cache, {});
  step.arm("language", mask);
  const at::Tensor x = tokens(8, /*grad=*/false);
  for (const char* module : {kFirst, kSecond, kSecond}) call(step, module, x);
  EXPECT_THAT(finish_error(step), AllOf(HasSubstr("executed backend \"magi\""), HasSubstr("2 forward"),
                                        HasSubstr("more often"), Not(HasSubstr(kFirst))));
}

TEST_F(Step, Sel9AnArmedMaskThatNobodyConsumesFailsTheStep) {
  StepContext step(table, cache, {});
  step.arm("language", mask);
  step.arm("vision", full_mask(4, 4));
  const at::Tensor x = tokens(8, /*grad=*/false);
  call(step, kFirst, x), call(step, kSecond, x);
  EXPECT_THAT(finish_error(step), AllOf(HasSubstr(kVision), HasSubstr("executed nothing"), Not(HasSubstr(kFirst))));
}

TEST_F(Step, Sel9AMaskThatIsNotArmedIsNotExpected) {
  StepContext step(table, cache, {});
  step.arm("language", mask);
  const at::Tensor x = tokens(8, /*grad=*/false);
  call(step, kFirst, x), call(step, kSecond, x);
  step.finish();  // a step of text alone: the vision module has nothing to do
}

TEST_F(Step, Sel9AMissingBackwardFailsATrainingStep) {
  StepContext step(table, cache, {.training = true});
  step.arm("language", mask);
  const at::Tensor first = call(step, kFirst, tokens(8));
  call(step, kSecond, first.detach().requires_grad_()).sum().backward();  // the graph is cut between the two
  EXPECT_THAT(finish_error(step), AllOf(HasSubstr(kFirst), HasSubstr("1 forward, 0 backward"),
                                        HasSubstr("no gradient came back"), Not(HasSubstr(kSecond))));
}

TEST_F(Step, Sel9BackwardTwiceFailsTheStep) {
  StepContext step(table, cache, {.training = true});
  step.arm("language", mask);
  const at::Tensor loss = call(step, kSecond, call(step, kFirst, tokens(8))).sum();
  loss.backward({}, /*retain_graph=*/true);
  loss.backward();
  EXPECT_THAT(finish_error(step), AllOf(HasSubstr("2 backward"), HasSubstr("backward ran more often")));
}

TEST_F(Step, Sel9MicroBatchesAreCounted) {
  StepContext step(table, cache, {.training = true, .forward_passes = 2});
  step.arm("language", mask);
  for (int i = 0; i < 2; ++i) call(step, kSecond, call(step, kFirst, tokens(8))).sum().backward();
  step.finish();

  StepContext one_only(table, cache, {.training = true, .forward_passes = 2});
  one_only.arm("language", mask);
  call(one_only, kSecond, call(one_only, kFirst, tokens(8))).sum().backward();
  EXPECT_THAT(finish_error(one_only), HasSubstr("less often"));
}

TEST_F(Step, Sel9RecomputationIsCountedApart) {
  StepContext step(table, cache, {.training = true});
  step.arm("language", mask);
  const at::Tensor x = tokens(8);
  {
    const c10::NoGradGuard no_grad;  // activation checkpointing: the first pass keeps nothing
    call(step, kSecond, call(step, kFirst, x));
  }
  {
    const StepContext::Recompute recompute(step);
    call(step, kSecond, call(step, kFirst, x)).sum().backward();
  }
  step.finish();
  EXPECT_EQ(step.ledger().entries()[0].forward, 1);
  EXPECT_EQ(step.ledger().entries()[0].recomputed, 1);
  EXPECT_EQ(step.ledger().entries()[0].backward, 1);
}

TEST_F(Step, Sel9RecomputingTooOftenFailsTheStep) {
  StepContext step(table, cache, {});
  step.arm("language", mask);
  const at::Tensor x = tokens(8, /*grad=*/false);
  call(step, kFirst, x), call(step, kSecond, x);
  {
    const StepContext::Recompute recompute(step);
    call(step, kFirst, x), call(step, kFirst, x);
  }
  EXPECT_THAT(finish_error(step), AllOf(HasSubstr("2 recomputed"), Not(HasSubstr(kSecond))));
}

TEST_F(Step, Sel9AStepWithoutAnyMaskFails) {
  StepContext step(table, cache, {});
  EXPECT_THAT(finish_error(step), HasSubstr("no mask was armed"));
}

struct Executed {
  const char* name;
  std::vector<LedgerEntry> entries;  // of kFirst, planned is one forward by magi with mask {1, 1}
  const char* expected;              // in the one problem; empty: none
};
class Sel9Test : public Step, public ::testing::WithParamInterface<Executed> {};

TEST_P(Sel9Test, WhateverPathWasTakenShowsInTheLedger) {
  table = std::make_shared<SelectionTable>(SelectionTable({table->at(kFirst)}));
  const std::vector<std::string> problems =
      step_problems(*table, {{"language", Hash128{1, 1}}}, GetParam().entries, {.training = false});
  if (std::string(GetParam().expected).empty()) {
    EXPECT_THAT(problems, ::testing::IsEmpty());
  } else {
    EXPECT_THAT(problems, ::testing::ElementsAre(HasSubstr(GetParam().expected)));
  }
}

const Executed kExecuted[] = {
    {"as_planned", {{kFirst, "magi", {1, 1}, 1}}, ""},
    {"nothing", {}, "skipped"},
    {"another_mask", {{kFirst, "magi", {1, 2}, 1}}, "another mask was used"},
    {"another_backend", {{kFirst, "sdpa", {1, 1}, 1}}, "another backend ran"},
    {"two_masks", {{kFirst, "magi", {1, 1}, 1}, {kFirst, "magi", {1, 2}, 1}}, "more than one backend or mask"},
    {"twice", {{kFirst, "magi", {1, 1}, 2}}, "more often"},
    {"backward_in_inference", {{kFirst, "magi", {1, 1}, 1, 0, 1}}, "backward ran more often"},
    {"unknown_module",
     {{kFirst, "magi", {1, 1}, 1}, {"other", "magi", {1, 1}, 1}},
     "other: not in the selection table"},
};
INSTANTIATE_TEST_SUITE_P(Cases, Sel9Test, ::testing::ValuesIn(kExecuted),
                         [](const auto& info) { return info.param.name; });

TEST_F(Step, Sel9AModuleWhoseMaskIsNotArmedMustNotRun) {
  const auto problems = step_problems(*table, {{"vision", Hash128{1, 1}}},
                                      {{kFirst, "magi", {1, 1}, 1}, {kVision, "magi", {1, 1}, 1}}, {});
  EXPECT_THAT(problems, ::testing::ElementsAre(AllOf(HasSubstr(kFirst), HasSubstr("planned nothing"))));
}

TEST_F(Step, TheNextStepKnowsNothingOfThisOnesMask) {
  {
    StepContext step(table, cache, {});
    step.arm("language", mask);
    const at::Tensor x = tokens(8, /*grad=*/false);
    call(step, kFirst, x), call(step, kSecond, x);
    step.finish();
  }
  StepContext next(table, cache, {});
  const std::string text =
      error_of(ErrorCode::kMaskNotConsumed, [&] { call(next, kFirst, tokens(8, /*grad=*/false)); });
  EXPECT_THAT(text, AllOf(HasSubstr("no mask is armed for \"language\""), HasSubstr(kFirst)));
  error_of(ErrorCode::kMaskNotConsumed, [&] { next.mask("language"); });
  finish_error(next);
}

TEST_F(Step, ArmingRefusesUnknownAndRepeatedKeys) {
  StepContext step(table, cache, {});
  EXPECT_THAT(error_of(ErrorCode::kInvalidArgument, [&] { step.arm("langauge", mask); }),
              AllOf(HasSubstr("known: \"language\" \"vision\""), HasSubstr("did you mean \"language\"?")));
  step.arm("language", mask);
  EXPECT_THAT(error_of(ErrorCode::kInvalidArgument, [&] { step.arm("language", mask); }), HasSubstr("armed already"));
  finish_error(step);
}

TEST_F(Step, UnknownModulesAreRefused) {
  StepContext step(table, cache, {});
  step.arm("language", mask);
  EXPECT_THAT(error_of(ErrorCode::kUnmatchedModule, [&] { call(step, "model.layers.9.self_attn", tokens(8)); }),
              HasSubstr("model.layers.9.self_attn"));
  finish_error(step);
}

TEST_F(Step, FinishedStepsTakeNothingMore) {
  StepContext step(table, cache, {});
  step.arm("language", mask);
  const at::Tensor x = tokens(8, /*grad=*/false);
  call(step, kFirst, x), call(step, kSecond, x);
  step.finish();
  EXPECT_THAT(error_of(ErrorCode::kInvalidArgument, [&] { step.finish(); }), HasSubstr("twice"));
  error_of(ErrorCode::kInvalidArgument, [&] { call(step, kFirst, x); });
  error_of(ErrorCode::kInvalidArgument, [&] { step.arm("vision", full_mask(4, 4)); });
}

struct Outside {
  const char* name;
  AttnMaskSpec mask;
  at::Tensor q, k;
  const char* expected;
};
class Sel7Test : public Step, public ::testing::WithParamInterface<Outside> {};

TEST_P(Sel7Test, ACallOutsideTheEnvelopeFailsBeforeTheBackendRuns) {
  StepContext step(table, cache, {});
  step.arm("language", GetParam().mask);
  const std::string text =
      error_of(ErrorCode::kOutOfEnvelope, [&] { step.attend(kFirst, GetParam().q, GetParam().k, GetParam().k, {}); });
  EXPECT_THAT(text, AllOf(HasSubstr(GetParam().expected), HasSubstr(kFirst), HasSubstr("not rerouted")));
  EXPECT_EQ(magi->prepares + magi->forwards, 0);
  finish_error(step);
}

const Outside kOutside[] = {
    {"window", sliding_window_mask({8}, {.left = 2}), at::ones({8, 2, 4}), at::ones({8, 2, 4}),
     "mask.type: got sliding_window, want varlen_causal"},
    {"cross_lengths", causal_mask(4, 8), at::ones({4, 2, 4}), at::ones({8, 2, 4}), "mask.cross_lengths"},
    {"empty_rows", AttnMaskSpec({{.q = {0, 3}, .k = {0, 3}, .type = MaskType::kCausal}}, 8, 8), at::ones({8, 2, 4}),
     at::ones({8, 2, 4}), "mask.empty_rows"},
    {"dtype", causal_mask(8, 8), at::ones({8, 2, 4}, at::kBFloat16), at::ones({8, 2, 4}, at::kBFloat16),
     "dtype: got bf16, want fp32"},
    {"heads", causal_mask(8, 8), at::ones({8, 2, 4}), at::ones({8, 1, 4}), "heads: got 2:1, want 2:2"},
    {"head_dim", causal_mask(8, 8), at::ones({8, 2, 8}), at::ones({8, 2, 8}), "head_dim: got 8, want 4"},
    {"gradient_in_inference", causal_mask(8, 8), at::ones({8, 2, 4}).requires_grad_(), at::ones({8, 2, 4}), "training"},
};
INSTANTIATE_TEST_SUITE_P(Cases, Sel7Test, ::testing::ValuesIn(kOutside),
                         [](const auto& info) { return info.param.name; });

TEST_F(Step, Sel7AFrozenModuleMustNotRecordAGradient) {
  StepContext step(table, cache, {.training = true});
  step.arm("vision", full_mask(4, 4));
  EXPECT_THAT(error_of(ErrorCode::kOutOfEnvelope, [&] { call(step, kVision, tokens(4)); }), HasSubstr("training"));
  call(step, kVision, tokens(4, /*grad=*/false));
  step.finish();  // planned for inference alone: no backward is due
}

TEST_F(Step, ARuleThatRequiresDeterminismReachesTheBackend) {
  table = std::make_shared<SelectionTable>(
      select({.rules = {{.match = "**", .backend = "magi", .require_deterministic = true, .origin = "test"}}},
             {table->at(kFirst).module}, registry));
  StepContext step(table, cache, {.training = true});
  step.arm("language", mask);
  call(step, kFirst, tokens(8)).sum().backward();
  step.finish();
  EXPECT_TRUE(magi->last_deterministic);
}

TEST_F(Step, AnUnfinishedStepLogsAnError) {
  const std::string text = logged([&] {
    StepContext step(table, cache, {});
    step.arm("language", mask);
  });
  EXPECT_THAT(text, AllOf(HasSubstr("destroyed without finish()"), HasSubstr(kFirst), HasSubstr(kSecond)));
}

TEST_F(Step, AnExceptionInFlightIsNotDrownedByTheUnfinishedStep) {
  const std::string text = logged([&] {
    try {
      StepContext step(table, cache, {});
      step.arm("language", mask);
      throw std::runtime_error("the real error");
    } catch (const std::runtime_error&) {
    }
  });
  EXPECT_EQ(text, "");
}

TEST_F(Step, BackwardMayOutliveTheStep) {
  at::Tensor loss;
  logged([&] {
    StepContext step(table, cache, {.training = true});
    step.arm("language", mask);
    loss = call(step, kFirst, tokens(8)).sum();
  });
  loss.backward();  // the node still holds what it records into
}

}  // namespace
}  // namespace attnmux
