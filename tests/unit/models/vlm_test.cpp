// A vision-language model against transformers: goldens of tests/golden/make_model_goldens.py with no image, one,
// three, and packed documents with images; which module is on which backend with which mask; what bad input is told.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "attnmux/error.h"
#include "attnmux/selection_policy.h"
#include "attnmux/step_context.h"
#include "models/nn/image_grid.h"
#include "models/nn/layer_masks.h"
#include "models/nn/linear_cross_entropy.h"
#include "models/nn/mrope_positions.h"
#include "models/nn/vision_masks.h"
#include "tests/common/compare.h"
#include "tests/unit/expect_error.h"
#include "vlm_golden.h"

namespace attnmux {
namespace {

using testing::close;

using testing::kVlm;
using testing::plain_magi;
using testing::vlm_table;
using testing::VlmGolden;

void arm(StepContext& step, const ModelConfig& config, const VlmGolden& golden) {
  arm_layers(step, config, golden.mask);
  arm_images(step, config, golden.input.image_grids);
}

struct Case {
  std::string golden;
  std::string policy;
  bool activation_checkpointing;
};

class VlmAgainstTransformers : public ::testing::TestWithParam<Case> {};

TEST_P(VlmAgainstTransformers, LogitsLossAndGradientsEqualTransformers) {
  const auto& [name, policy, checkpointing] = GetParam();
  const VlmGolden golden(name);
  const std::unique_ptr<CausalLm> model = load_causal_lm(kVlm, {.training = true});
  const auto table = vlm_table(policy == "plain_magi" ? plain_magi() : testing::all_on(policy));
  StepContext step(table, std::make_shared<PreparedCache>(), {.training = true});
  arm(step, model->config(), golden);

  const at::Tensor hidden = model->forward(golden.input, step, {.activation_checkpointing = checkpointing});
  const at::Tensor logits = golden.file.tensor("logits"), labels = golden.file.tensor("labels");
  EXPECT_TRUE(
      close(at::linear(hidden, model->lm_head()), logits, {.absolute = 1e-5 * logits.abs().max().item<double>()}))
      << "logits";
  const int64_t valid = labels.ne(kIgnoredLabel).sum().item<int64_t>();
  const at::Tensor loss = linear_cross_entropy(hidden, model->lm_head(), labels, valid);
  EXPECT_TRUE(close(loss, golden.file.tensor("loss"), {.absolute = 1e-5}));
  loss.backward();
  step.finish();

  int compared = 0;
  for (const std::string& parameter : model->parameters().names()) {
    if (!golden.file.contains("grad." + parameter)) continue;
    ++compared;
    const at::Tensor expected = golden.file.tensor("grad." + parameter);
    EXPECT_TRUE(close(model->parameters().at(parameter).grad(), expected,
                      {.absolute = 1e-4 * expected.abs().max().item<double>(), .relative = 1e-4}))
        << parameter;
  }
  EXPECT_EQ(compared, golden.input.image_grids.empty() ? 3 : 7);
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char* golden : {"text", "one_image", "three_images", "packed"}) {
    for (const char* policy : {"plain_magi", "magi", "reference"}) all.push_back({golden, policy, false});
  }
  all.push_back({"packed", "plain_magi", true});
  return all;
}

INSTANTIATE_TEST_SUITE_P(Vlm, VlmAgainstTransformers, ::testing::ValuesIn(cases()), [](const auto& info) {
  return info.param.golden + "_" + info.param.policy + (info.param.activation_checkpointing ? "_checkpointed" : "");
});

TEST(Vlm, PlainMagiPutsTheLanguageOnMagiAndTheTowerOnSdpa) {
  const VlmGolden golden("three_images");
  const std::unique_ptr<CausalLm> model = load_causal_lm(kVlm, {});
  StepContext step(vlm_table(plain_magi()), std::make_shared<PreparedCache>(), {});
  arm(step, model->config(), golden);
  model->forward(golden.input, step, {});
  step.finish();

  std::vector<std::string> ran;
  for (const LedgerEntry& entry : step.ledger().entries()) {
    ran.push_back(entry.module + " " + entry.backend);
    EXPECT_EQ(entry.mask == golden.mask.hash(), entry.backend == "magi") << entry.module;
  }
  EXPECT_EQ(ran,
            (std::vector<std::string>{"model.language_model.layers.0.self_attn magi",
                                      "model.language_model.layers.1.self_attn magi", "model.visual.blocks.0.attn sdpa",
                                      "model.visual.blocks.1.attn sdpa", "model.visual.blocks.2.attn sdpa"}));
  EXPECT_NE(step.mask("vision").hash(), step.mask("vision.window").hash());
}

TEST(Vlm, RulesByPathSendTheTowerElsewhere) {
  const SelectionPolicy policy = policy_from_toml(
      "[[attention.rules]]\nmatch = \"model.visual.**\"\nbackend = \"flash\"\n"
      "[[attention.rules]]\nmatch = \"model.language_model.**\"\nbackend = \"magi\"\n",
      "rules.toml");
  const auto table = vlm_table(policy);
  EXPECT_EQ(table->at("model.visual.blocks.1.attn").backend_id, "flash");
  EXPECT_EQ(table->at("model.language_model.layers.1.self_attn").backend_id, "magi");
}

TEST(Vlm, TextAloneLeavesTheTowerOut) {
  const VlmGolden golden("text");
  const std::unique_ptr<CausalLm> model = load_causal_lm(kVlm, {});
  StepContext step(vlm_table(plain_magi()), std::make_shared<PreparedCache>(), {});
  arm(step, model->config(), golden);
  const at::Tensor hidden = model->forward(golden.input, step, {});
  step.finish();
  EXPECT_EQ(step.ledger().entries().size(), 2u);

  // Positions of one row are the same as three equal ones.
  StepContext again(vlm_table(plain_magi()), std::make_shared<PreparedCache>(), {});
  arm(again, model->config(), golden);
  EXPECT_TRUE(at::equal(model->forward({golden.input.input_ids, golden.input.position_ids[0]}, again, {}), hidden));
  again.finish();
}

TEST(Vlm, ImagesThatAreNotArmedAreAnError) {
  const VlmGolden golden("one_image");
  const std::unique_ptr<CausalLm> model = load_causal_lm(kVlm, {});
  expect_error(ErrorCode::kMaskNotConsumed, {"model.visual.blocks.0.attn", "vision.window"}, [&] {
    StepContext step(vlm_table(plain_magi()), std::make_shared<PreparedCache>(), {});
    arm_layers(step, model->config(), golden.mask);
    model->forward(golden.input, step, {});
  });
}

class VlmBadInput : public ::testing::Test {
 protected:
  void expect_refused(ErrorCode code, const std::vector<std::string>& message) {
    expect_error(code, message, [&] {
      StepContext step(vlm_table(plain_magi()), std::make_shared<PreparedCache>(), {});
      arm(step, model->config(), golden);
      model->forward(golden.input, step, {});
    });
  }
  VlmGolden golden{"one_image"};
  std::unique_ptr<CausalLm> model = load_causal_lm(kVlm, {});
};

TEST_F(VlmBadInput, MorePlaceholdersThanImages) {
  golden.input.input_ids = golden.input.input_ids.clone();
  golden.input.input_ids[0] = 60;
  expect_refused(ErrorCode::kInvalidArgument, {"7 image tokens (id 60)", "the 1 images make 6"});
}

TEST_F(VlmBadInput, PlaceholdersWithoutImages) {
  golden.input.image_grids.clear();
  golden.input.pixel_values = at::Tensor();
  expect_refused(ErrorCode::kInvalidArgument, {"6 image tokens", "the 0 images make 0"});
}

TEST_F(VlmBadInput, PatchesOfAnotherNumber) {
  golden.input.pixel_values = golden.input.pixel_values.slice(0, 1);
  expect_refused(ErrorCode::kInvalidArgument, {"pixel_values have shape [23, 96]", "[24, 96]"});
}

TEST_F(VlmBadInput, GridsThatDoNotMerge) {
  golden.input.image_grids = {{1, 8, 3}};
  expect_refused(ErrorCode::kInvalidArgument, {"1 x 8 x 3 patches", "multiples of 2"});
}

TEST_F(VlmBadInput, PositionsOfTheWrongRank) {
  golden.input.position_ids = golden.input.position_ids.slice(0, 0, 2);
  expect_refused(ErrorCode::kInvalidArgument, {"position_ids have shape [2, ", "[3, tokens]"});
}

TEST_F(VlmBadInput, Videos) {
  golden.input.input_ids = golden.input.input_ids.clone();
  golden.input.input_ids[0] = 61;
  expect_refused(ErrorCode::kUnsupported, {"video token (id 61)"});
}

TEST(Vlm, AFamilyWithoutATowerRefusesImages) {
  const std::unique_ptr<CausalLm> model = load_causal_lm(ATTNMUX_SOURCE_DIR "/tests/golden/models/qwen2_tied", {});
  const VlmGolden golden("one_image");
  StepContext step(testing::table_of(model->config(), plain_magi()), std::make_shared<PreparedCache>(), {});
  expect_error(ErrorCode::kInvalidArgument, {"Qwen2ForCausalLM", "text alone"},
               [&] { arm_images(step, model->config(), golden.input.image_grids); });
  expect_error(ErrorCode::kInvalidArgument, {"Qwen2ForCausalLM", "text alone"},
               [&] { model->forward(golden.input, step, {}); });
  arm_layers(step, model->config(), golden.mask);
  model->forward({golden.input.input_ids, at::arange(golden.input.input_ids.size(0), at::kLong)}, step, {});
  step.finish();
}

TEST(MropePositions, EqualTransformers) {
  const ModelConfig config = read_model_config(kVlm);
  for (const char* name : {"text", "one_image", "three_images", "packed"}) {
    const VlmGolden golden(name);
    const ModelInput& input = golden.input;
    const at::Tensor got = mrope_positions(config, input.input_ids, golden.seqlens, input.image_grids);
    EXPECT_TRUE(at::equal(got, input.position_ids)) << name << "\n" << got << "\n" << input.position_ids;
  }
}

TEST(MropePositions, ImagesThatDoNotFitTheirPlaceholdersAreRefused) {
  const ModelConfig config = read_model_config(kVlm);
  const VlmGolden golden("one_image");
  const at::Tensor& ids = golden.input.input_ids;
  const auto refused = [&](const std::vector<int64_t>& seqlens, const std::vector<ImageGrid>& grids,
                           const std::string& message) {
    expect_error(ErrorCode::kInvalidArgument, {message}, [&] { mrope_positions(config, ids, seqlens, grids); });
  };
  refused(golden.seqlens, {}, "token 4 belongs to no image");
  refused(golden.seqlens, {{1, 4, 6}, {1, 2, 2}}, "2 images, but placeholders for 1");
  refused(golden.seqlens, {{1, 6, 6}}, "image 0 makes 9 tokens, input_ids hold 6 for it");
  refused({6, ids.size(0) - 6}, {{1, 4, 6}}, "image 0 makes 6 tokens, input_ids hold 2 for it");
}

TEST(ImageGrid, WindowsCutAFrameRowByRow) {
  // 3 x 5 tokens in windows of 2 x 2.
  const WindowOrder order = order_by_windows({{1, 6, 10}}, /*merge=*/2, /*window=*/2);
  const at::Tensor expected = at::tensor({0, 1, 5, 6, 2, 3, 7, 8, 4, 9, 10, 11, 12, 13, 14}, at::kLong);
  EXPECT_TRUE(at::equal(order.index, expected)) << order.index;
  EXPECT_EQ(order.seqlens, (std::vector<int64_t>{16, 16, 8, 8, 8, 4}));
}

}  // namespace
}  // namespace attnmux
