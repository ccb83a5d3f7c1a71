// Model families against transformers: goldens of tests/golden/make_model_goldens.py, on every backend that takes the
// model.
#include "models/families/families.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "attnmux/error.h"
#include "attnmux/mask_builders.h"
#include "attnmux/step_context.h"
#include "models/io/safetensors.h"
#include "models/nn/layer_masks.h"
#include "models/nn/linear_cross_entropy.h"
#include "tests/common/compare.h"
#include "tests/common/cpu_backends.h"
#include "tests/common/tiny_model.h"
#include "tests/unit/expect_error.h"
#include "tests/common/temp_dir.h"

namespace attnmux {
namespace {

using testing::close;

std::string golden_dir(const std::string& model) { return ATTNMUX_SOURCE_DIR "/tests/golden/models/" + model; }

at::Tensor positions_of(const std::vector<int64_t>& seqlens) {
  std::vector<at::Tensor> positions;
  for (const int64_t length : seqlens) positions.push_back(at::arange(length, at::kLong));
  return at::cat(positions);
}

struct Golden {
  explicit Golden(const std::string& model) : file(SafetensorsFile::open(golden_dir(model) + "/golden.safetensors")) {
    const at::Tensor lengths = file.tensor("seqlens");
    seqlens.assign(lengths.const_data_ptr<int64_t>(), lengths.const_data_ptr<int64_t>() + lengths.numel());
  }
  ModelInput input() const { return {file.tensor("input_ids"), positions_of(seqlens)}; }
  AttnMaskSpec mask() const { return varlen_mask(seqlens, MaskType::kCausal); }
  int64_t valid_tokens() const { return file.tensor("labels").ne(kIgnoredLabel).sum().item<int64_t>(); }

  SafetensorsFile file;
  std::vector<int64_t> seqlens;
};

std::shared_ptr<const SelectionTable> table_for(const ModelConfig& config, const std::string& backend, DType dtype) {
  const AttentionUse use{.masks = {MaskFamily::kVarlenCausal}, .dtype = dtype, .max_tokens = 1024, .training = true};
  return std::make_shared<const SelectionTable>(
      select(testing::all_on(backend), attention_modules(config, use), testing::cpu_backends()));
}

struct Case {
  std::string model;
  std::string backend;
  bool activation_checkpointing;
};

std::string case_name(const ::testing::TestParamInfo<Case>& info) {
  return info.param.model + "_" + info.param.backend + (info.param.activation_checkpointing ? "_checkpointed" : "");
}

class FamilyGolden : public ::testing::TestWithParam<Case> {};

TEST_P(FamilyGolden, LogitsLossAndGradientsEqualTransformers) {
  const auto& [model_name, backend, checkpointing] = GetParam();
  const Golden golden(model_name);
  const std::unique_ptr<CausalLm> model = load_causal_lm(golden_dir(model_name), {.training = true});
  const auto table = table_for(model->config(), backend, DType::kFloat32);
  StepContext step(table, std::make_shared<PreparedCache>(), {.training = true});
  arm_layers(step, model->config(), golden.mask());

  const at::Tensor hidden = model->forward(golden.input(), step, {.activation_checkpointing = checkpointing});
  const at::Tensor logits = golden.file.tensor("logits");
  const double largest = logits.abs().max().item<double>();
  EXPECT_TRUE(close(at::linear(hidden, model->lm_head()), logits, {.absolute = 1e-5 * largest})) << "logits";
  const at::Tensor loss =
      linear_cross_entropy(hidden, model->lm_head(), golden.file.tensor("labels"), golden.valid_tokens());
  EXPECT_TRUE(close(loss, golden.file.tensor("loss"), {.absolute = 1e-5}));
  loss.backward();
  step.finish();

  for (const std::string& name : model->parameters().names()) {
    const at::Tensor expected = golden.file.tensor("grad." + name);
    const double scale = expected.abs().max().item<double>();
    EXPECT_TRUE(close(model->parameters().at(name).grad(), expected, {.absolute = 1e-4 * scale, .relative = 1e-4}))
        << name;
  }
  for (const LedgerEntry& entry : step.ledger().entries()) {
    EXPECT_EQ(entry.backend, backend);
    EXPECT_EQ(entry.mask, step.mask(table->at(entry.module).module.mask_key).hash()) << entry.module;
    EXPECT_EQ(entry.forward, 1);
    EXPECT_EQ(entry.recomputed, checkpointing ? 1 : 0) << entry.module;
    EXPECT_EQ(entry.backward, 1);
  }
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char* model : {"gqa1_tied", "gqa2_untied", "gqa8_llama3", "head_dim_apart", "bias_linear_rope",
                            "qwen2_tied", "qwen3_tied", "mistral"}) {
    for (const char* backend : {"reference", "sdpa", "flash", "magi"}) all.push_back({model, backend, false});
  }
  for (const char* model : {"qwen2_windows", "qwen3_windows", "mistral_window", "gemma3"}) {
    for (const char* backend : {"reference", "sdpa", "magi"}) all.push_back({model, backend, false});
    all.push_back({model, "magi", true});
  }
  all.push_back({"gqa2_untied", "magi", true});
  all.push_back({"gqa2_untied", "reference", true});
  return all;
}

INSTANTIATE_TEST_SUITE_P(Models, FamilyGolden, ::testing::ValuesIn(cases()), case_name);

TEST(Families, ABackendThatRefusesWindowsRefusesTheLayersThatHaveThem) {
  expect_error(ErrorCode::kUnsupported, {"model.layers.1.self_attn", "flash", "sliding_window"},
               [] { table_for(read_model_config(golden_dir("qwen2_windows")), "flash", DType::kFloat32); });
}

TEST(Families, LayersOfBothKindsNameTheirMask) {
  const ModelConfig config = read_model_config(golden_dir("gemma3"));
  const std::vector<AttentionModule> modules = attention_modules(config, {.masks = {MaskFamily::kVarlenCausal}});
  ASSERT_EQ(modules.size(), 3u);
  EXPECT_EQ(modules[0].mask_key, "language.sliding");
  EXPECT_EQ(modules[0].request.masks, MaskFamilySet{MaskFamily::kSlidingWindow});
  EXPECT_EQ(modules[1].mask_key, "language");
  EXPECT_EQ(modules[1].request.masks, MaskFamilySet{MaskFamily::kVarlenCausal});
  EXPECT_EQ(modules[2].role, "language");
}

TEST(Families, AWindowThatIsNotArmedIsAnError) {
  const Golden golden("gemma3");
  const std::unique_ptr<CausalLm> model = load_causal_lm(golden_dir("gemma3"), {});
  StepContext step(table_for(model->config(), "magi", DType::kFloat32), std::make_shared<PreparedCache>(), {});
  step.arm("language", golden.mask());
  expect_error(ErrorCode::kMaskNotConsumed, {"model.layers.0.self_attn", "language.sliding"},
               [&] { model->forward(golden.input(), step, {}); });
  step.arm("language.sliding", golden.mask());
  model->forward(golden.input(), step, {});
  step.finish();
}

TEST(Families, Gemma3InBf16StaysNearTheGolden) {
  const Golden golden("gemma3");
  const std::unique_ptr<CausalLm> model = load_causal_lm(golden_dir("gemma3"), {.dtype = at::kBFloat16});
  StepContext step(table_for(model->config(), "magi", DType::kBFloat16), std::make_shared<PreparedCache>(), {});
  arm_layers(step, model->config(), golden.mask());
  const at::Tensor hidden = model->forward(golden.input(), step, {});
  step.finish();
  EXPECT_EQ(hidden.scalar_type(), at::kBFloat16);
  const at::Tensor loss =
      linear_cross_entropy(hidden, model->lm_head(), golden.file.tensor("labels"), golden.valid_tokens());
  EXPECT_TRUE(close(loss, golden.file.tensor("loss"), {.relative = 0.05}));
}

TEST(Llama, DoublePrecisionFollowsTheGoldenClosely) {
  const Golden golden("gqa8_llama3");
  const std::string dir = golden_dir("gqa8_llama3");
  const std::unique_ptr<CausalLm> model = load_causal_lm(dir, {.dtype = at::kDouble});
  StepContext step(table_for(read_model_config(dir), "reference", DType::kFloat64), std::make_shared<PreparedCache>(),
                   {.training = false});
  arm_layers(step, model->config(), golden.mask());
  const at::Tensor hidden = model->forward(golden.input(), step, {});
  step.finish();
  EXPECT_EQ(hidden.scalar_type(), at::kDouble);
  EXPECT_TRUE(close(at::linear(hidden, model->lm_head()), golden.file.tensor("logits"), {.absolute = 5e-5}));
}

TEST(Llama, Bf16StaysNearTheGolden) {
  const Golden golden("gqa2_untied");
  const std::string dir = golden_dir("gqa2_untied");
  const std::unique_ptr<CausalLm> model = load_causal_lm(dir, {.dtype = at::kBFloat16, .training = true});
  StepContext step(table_for(read_model_config(dir), "magi", DType::kBFloat16), std::make_shared<PreparedCache>(),
                   {.training = true});
  arm_layers(step, model->config(), golden.mask());
  const at::Tensor hidden = model->forward(golden.input(), step, {});
  EXPECT_EQ(hidden.scalar_type(), at::kBFloat16);
  const at::Tensor loss =
      linear_cross_entropy(hidden, model->lm_head(), golden.file.tensor("labels"), golden.valid_tokens());
  loss.backward();
  step.finish();
  EXPECT_TRUE(close(loss, golden.file.tensor("loss"), {.absolute = 0.05}));
}

TEST(Llama, DocumentsOfAPackDoNotSeeEachOther) {
  // Changing the first document leaves the logits of the others as they are, bit for bit.
  const Golden golden("gqa2_untied");
  const std::string dir = golden_dir("gqa2_untied");
  const std::unique_ptr<CausalLm> model = load_causal_lm(dir, {});
  const auto run = [&](const ModelInput& input) {
    StepContext step(table_for(read_model_config(dir), "magi", DType::kFloat32), std::make_shared<PreparedCache>(), {});
    arm_layers(step, model->config(), golden.mask());
    const at::Tensor hidden = model->forward(input, step, {});
    step.finish();
    return hidden;
  };
  ModelInput changed = golden.input();
  changed.input_ids = changed.input_ids.clone();
  const int64_t first = golden.seqlens.front();
  changed.input_ids.narrow(0, 0, first).fill_(3);
  const at::Tensor before = run(golden.input()), after = run(changed);
  EXPECT_FALSE(at::equal(before.narrow(0, 0, first), after.narrow(0, 0, first)));
  EXPECT_TRUE(at::equal(before.slice(0, first), after.slice(0, first)));
}

TEST(Llama, ListsItsAttentionModulesFromConfigAlone) {
  const ModelConfig config = read_model_config(golden_dir("head_dim_apart"));
  const std::vector<AttentionModule> modules =
      attention_modules(config, {.masks = {MaskFamily::kVarlenCausal}, .max_tokens = 77, .training = true});
  ASSERT_EQ(modules.size(), 2u);
  EXPECT_EQ(modules[1].path, "model.layers.1.self_attn");
  EXPECT_EQ(modules[1].role, "language");
  EXPECT_EQ(modules[1].mask_key, "language");
  EXPECT_EQ(modules[1].request.heads_q, 2);
  EXPECT_EQ(modules[1].request.heads_kv, 1);
  EXPECT_EQ(modules[1].request.head_dim, 24);
  EXPECT_EQ(modules[1].request.max_tokens, 77);
  EXPECT_TRUE(modules[1].request.training);
}

TEST(Llama, ObserverSeesEveryModuleInOrder) {
  const Golden golden("gqa1_tied");
  const std::unique_ptr<CausalLm> model = load_causal_lm(golden_dir("gqa1_tied"), {});
  StepContext step(table_for(read_model_config(golden_dir("gqa1_tied")), "reference", DType::kFloat32),
                   std::make_shared<PreparedCache>(), {});
  arm_layers(step, model->config(), golden.mask());
  std::vector<std::string> seen;
  model->forward(golden.input(), step,
                 {.observe = [&](const std::string& path, const at::Tensor&) { seen.push_back(path); }});
  step.finish();
  const std::vector<std::string> expected = {"model.embed_tokens",       "model.layers.0.input_layernorm",
                                             "model.layers.0.self_attn", "model.layers.0.post_attention_layernorm",
                                             "model.layers.0.mlp",       "model.layers.1.input_layernorm",
                                             "model.layers.1.self_attn", "model.layers.1.post_attention_layernorm",
                                             "model.layers.1.mlp",       "model.norm"};
  EXPECT_EQ(seen, expected);
}

// A tiny model whose weights a test may spoil.
class Weights : public ::testing::Test {
 protected:
  Weights() : dir_(temp_.file("model")) {
    testing::make_tiny_model(dir_);
    const SafetensorsFile file = SafetensorsFile::open(dir_ + "/model.safetensors");
    for (const std::string& name : file.names()) tensors_[name] = file.tensor(name).clone();
  }
  void write() {
    std::vector<NamedTensor> named;
    for (const auto& [name, tensor] : tensors_) named.push_back({name, tensor});
    write_safetensors(dir_ + "/model.safetensors", named, {});
  }
  TempDir temp_;
  std::string dir_;
  std::map<std::string, at::Tensor> tensors_;
};

TEST_F(Weights, AllProblemsAreListedAtOnceWithTheFile) {
  tensors_.erase("model.norm.weight");
  tensors_.erase("model.layers.1.mlp.up_proj.weight");
  tensors_["model.layers.0.self_attn.q_proj.weight"] = at::zeros({3, 5});
  tensors_["model.layers.0.input_layernorm.weight"] = at::zeros({16}, at::kLong);
  tensors_["model.layers.2.input_layernorm.weight"] = at::zeros({16});
  write();
  expect_error(
      ErrorCode::kBadFile,
      {"5 problem(s)", "missing: model.norm.weight [16]", "missing: model.layers.1.mlp.up_proj.weight [32, 16]",
       "shape: model.layers.0.self_attn.q_proj.weight is [3, 5]", "config.json asks for [16, 16]",
       "dtype: model.layers.0.input_layernorm.weight is I64", "surplus: model.layers.2.input_layernorm.weight",
       "model.safetensors"},
      [&] { load_causal_lm(dir_, {}); });
}

TEST_F(Weights, TiedHeadMayBeStoredTwiceIfItIsTheSame) {
  tensors_["lm_head.weight"] = tensors_["model.embed_tokens.weight"].clone();
  tensors_["model.layers.0.self_attn.rotary_emb.inv_freq"] = at::ones({4});
  write();
  EXPECT_EQ(load_causal_lm(dir_, {})->parameters().names().back(), "model.norm.weight");
  tensors_["lm_head.weight"][0][0] += 1;
  write();
  expect_error(ErrorCode::kBadFile, {"lm_head.weight", "differs from model.embed_tokens.weight", "tie_word_embeddings"},
               [&] { load_causal_lm(dir_, {}); });
}

TEST_F(Weights, TrainingCopiesAndInferenceMaps) {
  const auto trained = load_causal_lm(dir_, {.training = true});
  const auto mapped = load_causal_lm(dir_, {});
  const at::Tensor copy = trained->parameters().at("model.norm.weight");
  EXPECT_TRUE(copy.requires_grad());
  EXPECT_TRUE(copy.is_leaf());
  EXPECT_FALSE(mapped->parameters().at("model.norm.weight").requires_grad());
  EXPECT_EQ(load_causal_lm(dir_, {.dtype = at::kBFloat16})->lm_head().scalar_type(), at::kBFloat16);
  EXPECT_EQ(mapped->lm_head().data_ptr(), mapped->parameters().at("model.embed_tokens.weight").data_ptr());
}

}  // namespace
}  // namespace attnmux
