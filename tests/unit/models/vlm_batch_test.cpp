// A vision-language model over a group of ranks: the numbers of one rank, whoever ran which image.
#include "models/data/vlm_batch.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "attnmux/error.h"
#include "models/data/deal_images.h"
#include "models/nn/image_grid.h"
#include "models/nn/layer_masks.h"
#include "models/nn/linear_cross_entropy.h"
#include "models/nn/vision_masks.h"
#include "models/train/gradient_sum.h"
#include "tests/common/compare.h"
#include "tests/unit/expect_error.h"
#include "tests/unit/fake_backend.h"
#include "vlm_golden.h"

namespace attnmux {
namespace {

using testing::close;
using testing::kVlm;
using testing::plain_magi;
using testing::vlm_table;
using testing::VlmGolden;

VlmSequence sequence_of(const VlmGolden& golden) {
  return {.input_ids = golden.input.input_ids,
          .position_ids = golden.input.position_ids,
          .labels = golden.file.tensor("labels"),
          .mask = golden.mask,
          .pixel_values = golden.input.pixel_values,
          .image_grids = golden.input.image_grids};
}

struct Setting {
  int32_t cp = 1;
  SelectionPolicy policy = plain_magi();
  bool share_images = true;
  bool activation_checkpointing = false;
  bool pad = false;
};

// What a training step makes of one sequence, before the update.
struct Step {
  double loss = 0;                              // of all ranks
  std::map<std::string, at::Tensor> gradients;  // likewise
  std::vector<std::vector<LedgerEntry>> ledgers;
};

// A model, a step and a share for each rank, as in training.
Step run(const VlmGolden& golden, const Setting& setting) {
  const VlmSequence sequence = sequence_of(golden);
  const int64_t valid = sequence.labels.ne(kIgnoredLabel).sum().item<int64_t>();
  const auto table = vlm_table(setting.policy, setting.cp);
  const ForwardOptions forward{.activation_checkpointing = setting.activation_checkpointing};
  Step result;
  result.ledgers.resize(setting.cp);
  PlanCache plans;
  run_threads_group(setting.cp, {.deadline = std::chrono::seconds(60)}, [&](CpGroup& group) {
    const std::unique_ptr<CausalLm> model = load_causal_lm(kVlm, {.training = true});
    StepContext step(table, std::make_shared<PreparedCache>(), {.training = true});
    const VlmBatchOptions options{.sharding = {.dispatch = {.chunk_size = 5, .pad = setting.pad}},
                                  .share_images = setting.share_images,
                                  .forward = forward};
    const LlmBatch batch = prepare_vlm_batch(*model, sequence, group, step, options, plans);
    arm_layers(step, model->config(), batch.plan);
    const at::Tensor hidden = model->forward(batch.input(), step, forward);
    const at::Tensor loss = linear_cross_entropy(hidden, model->lm_head(), batch.labels, valid);
    loss.backward();
    step.finish();
    result.ledgers[group.rank()] = step.ledger().entries();

    at::Tensor sum = loss.detach().to(at::kDouble).reshape({1});
    group.all_reduce(sum, ReduceOp::kSum)->wait();
    sum_gradients(model->parameters(), group);
    if (group.rank() != 0) return;
    result.loss = sum.item<double>();
    for (const std::string& name : model->parameters().names()) {
      result.gradients[name] = model->parameters().at(name).grad();
    }
  });
  return result;
}

void expect_same(const Step& actual, const Step& expected) {
  EXPECT_NEAR(actual.loss, expected.loss, 1e-5);
  ASSERT_EQ(actual.gradients.size(), expected.gradients.size());
  for (const auto& [name, gradient] : expected.gradients) {
    EXPECT_TRUE(
        close(actual.gradients.at(name), gradient, {.absolute = 1e-4 * gradient.abs().max().item<double>() + 1e-9}))
        << name;
  }
}

// One rank's numbers for a sequence, computed once.
const Step& one_rank(const std::string& name) {
  static std::map<std::string, Step> steps;
  const auto found = steps.find(name);
  return found != steps.end() ? found->second : steps.emplace(name, run(VlmGolden(name), {})).first->second;
}

class VlmRanks : public ::testing::TestWithParam<std::string> {};

TEST_P(VlmRanks, OneRankEqualsTransformers) {
  const VlmGolden golden(GetParam());
  const Step& step = one_rank(GetParam());
  EXPECT_NEAR(step.loss, golden.file.tensor("loss").item<double>(), 1e-5);
  int compared = 0;
  for (const auto& [name, gradient] : step.gradients) {
    if (!golden.file.contains("grad." + name)) continue;
    ++compared;
    const at::Tensor expected = golden.file.tensor("grad." + name);
    EXPECT_TRUE(close(gradient, expected, {.absolute = 1e-4 * expected.abs().max().item<double>()})) << name;
  }
  EXPECT_EQ(compared, golden.input.image_grids.empty() ? 3 : 7);
}

TEST_P(VlmRanks, RanksThatShareTheImagesEqualOne) {
  for (const int32_t cp : {2, 4}) {
    SCOPED_TRACE("cp " + std::to_string(cp));
    expect_same(run(VlmGolden(GetParam()), {.cp = cp}), one_rank(GetParam()));
  }
}

TEST_P(VlmRanks, RanksThatAllRunEveryImageEqualOne) {
  for (const int32_t cp : {2, 4}) {
    SCOPED_TRACE("cp " + std::to_string(cp));
    expect_same(run(VlmGolden(GetParam()), {.cp = cp, .share_images = false}), one_rank(GetParam()));
  }
}

TEST_P(VlmRanks, ATowerOnMagiGivesTheSame) {
  expect_same(run(VlmGolden(GetParam()), {.cp = 2, .policy = testing::all_on("magi")}), one_rank(GetParam()));
}

INSTANTIATE_TEST_SUITE_P(Sequences, VlmRanks, ::testing::Values("text", "one_image", "three_images", "packed"),
                         [](const auto& info) { return info.param; });

TEST(VlmBatch, ActivationCheckpointingAndPaddingChangeNothing) {
  expect_same(run(VlmGolden("packed"), {.cp = 3, .activation_checkpointing = true}), one_rank("packed"));
  expect_same(run(VlmGolden("packed"), {.cp = 3, .pad = true}), one_rank("packed"));
}

TEST(VlmBatch, OneRankGetsTheSequenceAtItsLength) {
  const VlmGolden golden("packed");
  const std::unique_ptr<CausalLm> model = load_causal_lm(kVlm, {});
  const std::shared_ptr<CpGroup> group = single_rank_group();
  StepContext step(vlm_table(plain_magi()), std::make_shared<PreparedCache>(), {});
  PlanCache plans;
  const VlmSequence sequence = sequence_of(golden);
  const LlmBatch batch = prepare_vlm_batch(*model, sequence, *group, step,
                                           {.sharding = {.dispatch = {.chunk_size = 5, .pad = true}}}, plans);
  arm_layers(step, model->config(), batch.plan);
  EXPECT_TRUE(batch.labels.is_same(sequence.labels));
  EXPECT_TRUE(at::equal(batch.position_ids, sequence.position_ids));
  const at::Tensor hidden = model->forward(batch.input(), step, {});
  step.finish();

  StepContext plain(vlm_table(plain_magi()), std::make_shared<PreparedCache>(), {});
  arm_layers(plain, model->config(), golden.mask);
  arm_images(plain, model->config(), golden.input.image_grids);
  EXPECT_TRUE(at::equal(model->forward(golden.input, plain, {}), hidden));
  plain.finish();
}

TEST(VlmBatch, PositionsOfOneDocumentAreCounted) {
  const VlmGolden golden("three_images");
  const std::unique_ptr<CausalLm> model = load_causal_lm(kVlm, {});
  const std::shared_ptr<CpGroup> group = single_rank_group();
  StepContext step(vlm_table(plain_magi()), std::make_shared<PreparedCache>(), {});
  PlanCache plans;
  VlmSequence sequence = sequence_of(golden);
  sequence.position_ids = at::Tensor();
  const LlmBatch batch = prepare_vlm_batch(*model, sequence, *group, step, {}, plans);
  EXPECT_TRUE(at::equal(batch.position_ids, golden.input.position_ids));
  arm_layers(step, model->config(), batch.plan);
  model->forward(batch.input(), step, {});
  step.finish();
}

// Each module's mask by its hash: the tower's are those of the images of its rank, whatever the backend.
TEST(VlmBatch, TheTowerNeverSeesTheLanguageMask) {
  const VlmGolden golden("packed");
  const ModelConfig config = read_model_config(kVlm);
  const auto& grids = golden.input.image_grids;
  for (const bool all_magi : {false, true}) {
    const Step step = run(golden, {.cp = 2, .policy = all_magi ? testing::all_on("magi") : plain_magi()});
    const std::vector<std::vector<int64_t>> images = deal_images(*config.vision, grids, 2);
    std::set<std::string> towers;
    for (const int32_t rank : {0, 1}) {
      std::vector<ImageGrid> own;
      for (const int64_t image : images[rank]) own.push_back(grids[image]);
      const WindowOrder windows =
          order_by_windows(own, config.vision->spatial_merge_size, config.vision->merged_window);
      const Hash128 full = varlen_mask(frame_seqlens(own), MaskType::kFull).hash();
      const Hash128 window = varlen_mask(windows.seqlens, MaskType::kFull).hash();
      ASSERT_EQ(step.ledgers[rank].size(), 5u);
      for (const LedgerEntry& entry : step.ledgers[rank]) {
        const bool tower = entry.module.starts_with("model.visual.");
        EXPECT_EQ(entry.backend, tower && !all_magi ? "sdpa" : "magi") << entry.module;
        EXPECT_EQ(entry.mask == golden.mask.hash(), !tower) << entry.module;
        EXPECT_EQ(entry.mask == full || entry.mask == window, tower) << entry.module;
        EXPECT_EQ(entry.forward, 1) << entry.module;
        EXPECT_EQ(entry.backward, 1) << entry.module;
        if (tower) towers.insert(to_string(entry.mask));
      }
    }
    EXPECT_GE(towers.size(), 3u) << "the ranks ran other images";
  }
}

TEST(VlmBatch, RanksWithoutImagesLeaveTheTowerOutAndTakePartInBackward) {
  const Step step = run(VlmGolden("one_image"), {.cp = 4});
  size_t towers = 0;
  for (const std::vector<LedgerEntry>& ledger : step.ledgers) towers += ledger.size() - 2;
  EXPECT_EQ(towers, 3u) << "three layers on one rank";
  for (const std::vector<LedgerEntry>& ledger : run(VlmGolden("text"), {.cp = 2}).ledgers) EXPECT_EQ(ledger.size(), 2u);
}

TEST(DealImages, WorkIsSpreadAndEveryRankDealsAlike) {
  const VisionConfig vision = *read_model_config(kVlm).vision;
  using Dealt = std::vector<std::vector<int64_t>>;
  const std::vector<ImageGrid> grids = {{1, 4, 4}, {1, 16, 16}, {1, 4, 4}, {1, 8, 8}, {1, 4, 4}};
  EXPECT_EQ(deal_images(vision, grids, 1), (Dealt{{0, 1, 2, 3, 4}}));
  EXPECT_EQ(deal_images(vision, grids, 2), (Dealt{{1}, {0, 2, 3, 4}}));
  EXPECT_EQ(deal_images(vision, grids, 3), (Dealt{{1}, {3}, {0, 2, 4}}));
  EXPECT_EQ(deal_images(vision, {{1, 4, 4}}, 3), (Dealt{{0}, {}, {}}));
  EXPECT_EQ(deal_images(vision, {}, 2), (Dealt{{}, {}}));
  // Frames attend apart from each other: a picture of four times the area is more work than four frames.
  EXPECT_GT(tower_flops(vision, {1, 16, 16}), tower_flops(vision, {4, 8, 8}));
}

class VlmBatchBadInput : public ::testing::Test {
 protected:
  // Each rank finds it itself, before anything is exchanged: none is told by another.
  void expect_refused_everywhere(ErrorCode code, const std::vector<std::string>& parts) {
    const std::unique_ptr<CausalLm> model = load_causal_lm(kVlm, {});
    PlanCache plans;
    run_threads_group(3, {.deadline = std::chrono::seconds(60)}, [&](CpGroup& group) {
      expect_error(code, parts, [&] {
        StepContext step(vlm_table(plain_magi(), 3), std::make_shared<PreparedCache>(), {});
        prepare_vlm_batch(*model, sequence, group, step, {.sharding = {.dispatch = {.chunk_size = 5}}}, plans);
      });
    });
  }
  VlmGolden golden{"one_image"};  // 1 x 4 x 6 patches, 6 tokens
  VlmSequence sequence = sequence_of(golden);
  const int64_t tokens = sequence.input_ids.size(0);
};

TEST_F(VlmBatchBadInput, PositionsOfAnotherShape) {
  const std::string shape = "for " + std::to_string(tokens) + " tokens";
  sequence.position_ids = golden.input.position_ids.slice(0, 0, 2);
  expect_refused_everywhere(ErrorCode::kInvalidArgument, {"position_ids have shape [2, ", shape, "[3, tokens]"});
  sequence.position_ids = golden.input.position_ids.slice(1, 1);
  expect_refused_everywhere(ErrorCode::kInvalidArgument, {"position_ids have shape [3, ", shape, "[3, tokens]"});
  sequence.position_ids = at::arange(tokens, at::kLong);
  expect_refused_everywhere(ErrorCode::kInvalidArgument, {"position_ids have shape [", shape, "[3, tokens] (M-RoPE)"});
}

TEST_F(VlmBatchBadInput, OtherImageTokensThanTheImagesMake) {
  sequence.input_ids = sequence.input_ids.clone();
  sequence.input_ids[0] = 60;
  expect_refused_everywhere(ErrorCode::kInvalidArgument, {"7 image tokens (id 60)", "the 1 images make 6"});
  sequence.position_ids = at::Tensor();
  expect_refused_everywhere(ErrorCode::kInvalidArgument, {"image 0 makes 6 tokens, input_ids hold 1 for it"});
}

TEST_F(VlmBatchBadInput, PatchesThatAreNotThoseOfTheGrids) {
  sequence.pixel_values = golden.input.pixel_values.slice(0, 1);
  expect_refused_everywhere(ErrorCode::kInvalidArgument, {"pixel_values have shape [23, 96]", "[24, 96]"});
  sequence.pixel_values = at::Tensor();
  expect_refused_everywhere(ErrorCode::kInvalidArgument, {"pixel_values are missing", "[24, 96]"});
  sequence.pixel_values = golden.input.pixel_values;
  sequence.image_grids = {{1, 8, 3}};
  expect_refused_everywhere(ErrorCode::kInvalidArgument, {"1 x 8 x 3 patches", "multiples of 2"});
}

TEST_F(VlmBatchBadInput, TensorsOfAnotherLength) {
  sequence.labels = sequence.labels.slice(0, 1);
  expect_refused_everywhere(ErrorCode::kInvalidArgument, {"labels has shape", std::to_string(tokens) + " tokens"});
  sequence.labels = at::Tensor();
  sequence.mask = causal_mask(5, 5);
  expect_refused_everywhere(ErrorCode::kInvalidArgument, {"the mask is 5 x 5", std::to_string(tokens) + " tokens"});
  sequence.input_ids = at::Tensor();
  expect_refused_everywhere(ErrorCode::kInvalidArgument, {"neither of input_ids and inputs_embeds"});
}

TEST_F(VlmBatchBadInput, RanksThatBringOtherImagesAreNamed) {
  const std::unique_ptr<CausalLm> model = load_causal_lm(kVlm, {});
  VlmSequence turned = sequence;
  turned.image_grids = {{1, 6, 4}};  // as many tokens
  PlanCache plans;
  run_threads_group(2, {.deadline = std::chrono::seconds(60)}, [&](CpGroup& group) {
    expect_error(ErrorCode::kRankDisagreement, {"the images of the sequence", "on rank 0", "on rank 1"}, [&] {
      StepContext step(vlm_table(plain_magi(), 2), std::make_shared<PreparedCache>(), {});
      prepare_vlm_batch(*model, group.rank() == 0 ? sequence : turned, group, step, {}, plans);
    });
  });
}

TEST_F(VlmBatchBadInput, ATextModelRefusesImagesAndTakesText) {
  const std::string dir = ATTNMUX_SOURCE_DIR "/tests/golden/models/qwen2_tied";
  const std::unique_ptr<CausalLm> model = load_causal_lm(dir, {});
  const auto table = testing::table_of(model->config(), plain_magi());
  const std::shared_ptr<CpGroup> group = single_rank_group();
  PlanCache plans;
  StepContext step(table, std::make_shared<PreparedCache>(), {});
  const auto prepare = [&](const VlmSequence& of) { return prepare_vlm_batch(*model, of, *group, step, {}, plans); };
  expect_error(ErrorCode::kInvalidArgument, {"the input holds images", "Qwen2ForCausalLM", "text alone"},
               [&] { prepare(sequence); });
  expect_error(ErrorCode::kInvalidArgument, {"Qwen2ForCausalLM", "text alone"},
               [&] { model->image_tokens(sequence.pixel_values, sequence.image_grids, step, {}); });
  const LlmBatch batch = prepare({.input_ids = sequence.input_ids});
  EXPECT_TRUE(batch.input_ids.is_same(sequence.input_ids));
  arm_layers(step, model->config(), batch.plan);
  model->forward(batch.input(), step, {});
  step.finish();
}

// All modules and all reasons at once: tower and language model on backends that refuse them.
TEST(VlmSelection, BackendsThatRefuseSayWhyForEveryModule) {
  const auto picky = std::make_shared<testing::FakeBackend>("picky");
  picky->refuse = [](const AttentionRequest& request) {
    return std::vector<Reason>{{ReasonCode::kMaskType, "varlen_full", "causal", "choose backend sdpa"},
                               {ReasonCode::kHeadDim, std::to_string(request.head_dim), "64", ""}};
  };
  PluginRegistry registry = testing::cpu_backends();
  registry.add("picky", picky, {});
  const SelectionPolicy policy{.rules = {{.match = "model.visual.**", .backend = "picky", .origin = "rules.toml:3:1"},
                                         {.match = "**", .backend = "flash", .origin = "rules.toml:6:1"}}};
  const AttentionUse use{.masks = {MaskFamily::kVarlenCausal}, .max_tokens = 1024, .training = true, .cp_size = 2};
  expect_error(ErrorCode::kUnsupported,
               {"model.visual.blocks.0.attn", "model.visual.blocks.1.attn", "model.visual.blocks.2.attn",
                "rules.toml:3:1", "mask.type: got varlen_full, want causal; choose backend sdpa",
                "head_dim: got 16, want 64", "model.language_model.layers.0.self_attn",
                "model.language_model.layers.1.self_attn", "rules.toml:6:1", "cp_size: got 2"},
               [&] { select(policy, attention_modules(read_model_config(kVlm), use), registry); });
}

}  // namespace
}  // namespace attnmux
