// Scoring: losses and logits against transformers, inputs in every form, and SmolLM2 where its folder is at hand.
#include "models/train/score.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "attnmux/mask_builders.h"
#include "models/io/safetensors.h"
#include "models/nn/linear_cross_entropy.h"
#include "tests/common/compare.h"
#include "tests/common/cpu_backends.h"
#include "tests/common/tiny_model.h"
#include "tests/unit/expect_error.h"
#include "tests/common/temp_dir.h"
#include "train_golden.h"
#include "vlm_golden.h"

namespace attnmux {
namespace {

namespace fs = std::filesystem;
using testing::close;

std::string golden_dir(const std::string& name) { return ATTNMUX_SOURCE_DIR "/tests/golden/" + name; }

class Score : public ::testing::Test {
 protected:
  ScoreResult run(const std::string& model, const ScoreInput& input, const ScoreOptions& options = {}) {
    return score(model, input, testing::all_on("magi"), testing::cpu_backends(), options);
  }
  std::string write_tokens(const std::vector<NamedTensor>& tensors) {
    write_safetensors(dir.file("tokens.safetensors"), tensors, {});
    return dir.file("tokens.safetensors");
  }
  static at::Tensor ints(const std::vector<int64_t>& values) { return at::tensor(values, at::kLong); }

  TempDir dir;
};

TEST_F(Score, PackedDocumentsEqualTransformers) {
  const std::string model = golden_dir("models/gqa8_llama3");
  const SafetensorsFile golden = SafetensorsFile::open(model + "/golden.safetensors");
  const at::Tensor offsets = at::cat({at::zeros({1}, at::kLong), golden.tensor("seqlens").cumsum(0)});
  const ScoreInput input =
      read_score_tokens(write_tokens({{"input_ids", golden.tensor("input_ids")}, {"cu_seqlens", offsets}}));
  const std::string logits_file = dir.file("logits.safetensors");
  const ScoreResult result = run(model, input, {.logits_file = logits_file});
  EXPECT_NEAR(result.loss, golden.tensor("loss").item<double>(), 1e-5);
  EXPECT_TRUE(close(SafetensorsFile::open(logits_file).tensor("logits"), golden.tensor("logits"), {.absolute = 5e-5}));
  ASSERT_EQ(result.documents.size(), 5u);
  EXPECT_EQ(result.documents[0].tokens, 11);
  EXPECT_FALSE(result.documents[1].loss.has_value());  // one token predicts nothing
  const at::Tensor probability = at::log_softmax(golden.tensor("logits"), -1);
  const at::Tensor of_third =
      probability.slice(0, 12, 34).gather(1, golden.tensor("input_ids").slice(0, 13, 35).unsqueeze(1));
  EXPECT_NEAR(*result.documents[2].loss, -of_third.mean().item<double>(), 1e-5);
  EXPECT_EQ(to_json(result).find('\n'), std::string::npos);
  const auto json = nlohmann::json::parse(to_json(result));
  EXPECT_EQ(json["tokens"], 82);
  EXPECT_NEAR(json["perplexity"].get<double>(), std::exp(result.loss), 1e-9);
  EXPECT_TRUE(json["documents"][1]["loss"].is_null());
}

TEST_F(Score, PaddingBetweenDocumentsChangesNoDocument) {
  testing::make_tiny_model(dir.file("model"));
  const ScoreInput packed = read_score_tokens(
      write_tokens({{"input_ids", ints({10, 11, 12, 20, 21, 22, 23})}, {"cu_seqlens", ints({0, 3, 7})}}));
  const ScoreResult without = run(dir.file("model"), packed);
  const ScoreInput padded = read_score_tokens(write_tokens({{"input_ids", ints({10, 11, 12, 0, 20, 21, 22, 23, 0, 0})},
                                                            {"cu_seqlens", ints({0, 3, 7})},
                                                            {"cu_seqlens_padded", ints({0, 4, 10})}}));
  const ScoreResult with = run(dir.file("model"), padded);
  ASSERT_EQ(with.documents.size(), 2u);
  EXPECT_NEAR(*with.documents[0].loss, *without.documents[0].loss, 1e-5);
  EXPECT_NEAR(*with.documents[1].loss, *without.documents[1].loss, 1e-5);
  EXPECT_NEAR(with.loss, without.loss, 1e-5);
}

TEST_F(Score, ManyRanksGiveTheNumbersOfOne) {
  const std::string model = golden_dir("models/gqa8_llama3");
  const SafetensorsFile golden = SafetensorsFile::open(model + "/golden.safetensors");
  const at::Tensor offsets = at::cat({at::zeros({1}, at::kLong), golden.tensor("seqlens").cumsum(0)});
  const ScoreInput input =
      read_score_tokens(write_tokens({{"input_ids", golden.tensor("input_ids")}, {"cu_seqlens", offsets}}));
  for (const int64_t cp : {2, 3, 8}) {  // 82 tokens in chunks of 16: two of the eight ranks have none
    const std::string logits_file = dir.file("logits.safetensors");
    const ScoreResult result = run(model, input, {.logits_file = logits_file, .cp = cp, .chunk_size = 16});
    EXPECT_NEAR(result.loss, golden.tensor("loss").item<double>(), 1e-5) << "cp " << cp;
    EXPECT_TRUE(close(SafetensorsFile::open(logits_file).tensor("logits"), golden.tensor("logits"), {.absolute = 5e-5}))
        << "cp " << cp;
  }
  expect_error(ErrorCode::kInvalidArgument, {"0 ranks"}, [&] { run(model, input, {.cp = 0}); });
  expect_error(ErrorCode::kUnsupported, {"flash", "cp_size", "mask.type"}, [&] {
    score(model, input, testing::all_on("flash"), testing::cpu_backends(), {.cp = 2, .chunk_size = 16});
  });
}

TEST_F(Score, ProgressCountsLayersThenRows) {
  const std::string model = golden_dir("models/gqa8_llama3");
  const ScoreInput input = read_score_tokens(write_tokens({{"input_ids", at::arange(64)}}));
  for (const int64_t cp : {1, 2}) {
    std::vector<int64_t> seen;
    std::set<int64_t> totals;
    run(model, input, {.cp = cp, .chunk_size = 16, .on_progress = [&](int64_t done, int64_t total) {
                         seen.push_back(done);
                         totals.insert(total);
                       }});
    ASSERT_EQ(totals.size(), 1u) << "cp " << cp;
    EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end())) << "cp " << cp;
    EXPECT_EQ(seen.front(), 0);
    EXPECT_EQ(seen.back(), *totals.begin());
    EXPECT_EQ(std::ssize(seen), read_model_config(model).num_hidden_layers + 1);  // these rows are one chunk of logits
  }
}

TEST_F(Score, LayersWithAWindowFindTheirTokensOnTheSameRanks) {
  const std::string model = golden_dir("models/gemma3");
  const SafetensorsFile golden = SafetensorsFile::open(model + "/golden.safetensors");
  const at::Tensor offsets = at::cat({at::zeros({1}, at::kLong), golden.tensor("seqlens").cumsum(0)});
  const ScoreInput input =
      read_score_tokens(write_tokens({{"input_ids", golden.tensor("input_ids")}, {"cu_seqlens", offsets}}));
  const ScoreResult one = run(model, input);
  const ScoreResult three = run(model, input, {.cp = 3, .chunk_size = 7});
  EXPECT_TRUE(close(three.token_losses, one.token_losses, {.absolute = 2e-5}));
}

TEST_F(Score, ImagesOverRanksEqualTransformers) {
  for (const char* name : {"text", "one_image", "three_images", "packed"}) {
    const testing::VlmGolden golden(name);
    const at::Tensor offsets = at::cat({at::zeros({1}, at::kLong), golden.file.tensor("seqlens").cumsum(0)});
    std::vector<NamedTensor> tensors{{"input_ids", golden.input.input_ids}, {"cu_seqlens", offsets}};
    if (!golden.input.image_grids.empty()) {
      for (const char* tensor : {"pixel_values", "image_grid_thw"})
        tensors.push_back({tensor, golden.file.tensor(tensor)});
    }
    const ScoreInput counted = read_score_tokens(write_tokens(tensors));  // positions as the model counts them
    tensors.push_back({"position_ids", golden.input.position_ids});
    const ScoreInput given = read_score_tokens(write_tokens(tensors));
    const at::Tensor expected = golden.file.tensor("logits");
    const std::string logits_file = dir.file("logits.safetensors");
    for (const int64_t cp : {1, 2, 4}) {
      const ScoreInput& input = cp == 2 ? given : counted;
      const ScoreResult result = score(testing::kVlm, input, testing::plain_magi(), testing::cpu_backends(),
                                       {.logits_file = logits_file, .cp = cp, .chunk_size = 5});
      EXPECT_NEAR(result.loss, golden.file.tensor("loss").item<double>(), 1e-5) << name << ", cp " << cp;
      EXPECT_TRUE(close(SafetensorsFile::open(logits_file).tensor("logits"), expected,
                        {.absolute = 1e-5 * expected.abs().max().item<double>()}))
          << name << ", cp " << cp;
    }
  }
}

TEST_F(Score, ImagesThatFitNeitherModelNorTokensAreNamed) {
  const testing::VlmGolden golden("one_image");
  const auto input = [&](const at::Tensor& ids, const at::Tensor& grids) {
    return read_score_tokens(
        write_tokens({{"input_ids", ids}, {"pixel_values", golden.input.pixel_values}, {"image_grid_thw", grids}}));
  };
  const at::Tensor grids = golden.file.tensor("image_grid_thw");
  const auto refused = [&](const std::string& model, const ScoreInput& of, const std::vector<std::string>& parts) {
    expect_error(ErrorCode::kInvalidArgument, parts, [&] { run(model, of, {.cp = 2, .chunk_size = 5}); });
  };
  refused(golden_dir("models/qwen2_tied"), input(golden.input.input_ids, grids), {"Qwen2ForCausalLM", "text alone"});
  refused(testing::kVlm, input(golden.input.input_ids.slice(0, 6), grids), {"image 0 makes 6 tokens"});
  refused(testing::kVlm, input(golden.input.input_ids, grids * 2), {"image 0 makes 48 tokens"});
}

TEST_F(Score, OtherMaskAndLabelsAreTaken) {
  testing::make_tiny_model(dir.file("model"));
  const ScoreInput input =
      read_score_tokens(write_tokens({{"input_ids", ints({10, 11, 12, 13})}, {"labels", ints({-100, 12, -100, 7})}}));
  const ScoreResult causal = run(dir.file("model"), input);
  EXPECT_EQ(causal.token_losses[0].item<float>(), 0.0f);
  EXPECT_NE(causal.token_losses[3].item<float>(), 0.0f);
  const ScoreResult alone = run(dir.file("model"), input, {.mask = varlen_mask({1, 1, 1, 1}, MaskType::kCausal)});
  EXPECT_NE(alone.loss, causal.loss);
}

TEST_F(Score, TextIsOneDocument) {
  testing::make_tiny_model(dir.file("model"));
  const ScoreInput input = read_score_text(dir.file("model"), dir.write("a.txt", "hello\n"));
  EXPECT_EQ(input.input_ids.size(0), 6);
  const ScoreResult result = run(dir.file("model"), input);
  EXPECT_EQ(result.documents.size(), 1u);
  EXPECT_EQ(*result.documents[0].loss, result.loss);
}

TEST_F(Score, BadInputIsNamed) {
  testing::make_tiny_model(dir.file("model"));
  const auto expect_bad = [&](const std::vector<NamedTensor>& tensors, const std::vector<std::string>& parts) {
    const std::string file = write_tokens(tensors);
    expect_error(ErrorCode::kBadFile, parts, [&] { read_score_tokens(file); });
  };
  const at::Tensor ids = ints({10, 11, 12, 13});
  expect_bad({{"ids", ids}}, {"tokens.safetensors", "input_ids"});
  expect_bad({{"input_ids", ids.to(at::kFloat)}}, {"input_ids must be I64", "it is F32 with 1"});
  expect_bad({{"input_ids", ids}, {"cu_seqlens", ints({0, 3, 2, 4})}}, {"cu_seqlens[2] = 2", "3 to 4"});
  expect_bad({{"input_ids", ids}, {"cu_seqlens", ints({1, 4})}}, {"cu_seqlens[0] = 1"});
  expect_bad({{"input_ids", ids}, {"cu_seqlens", ints({0, 3})}}, {"end at token 3", "has 4"});
  expect_bad({{"input_ids", ids}, {"cu_seqlens", ints({})}},
             {"tokens.safetensors: cu_seqlens is empty", "[documents + 1] that begins with 0"});
  expect_bad({{"input_ids", ids}, {"cu_seqlens", ints({0, 4})}, {"cu_seqlens_padded", ints({})}},
             {"tokens.safetensors: cu_seqlens_padded has 0 elements, expected 2"});
  expect_bad({{"input_ids", ids}, {"cu_seqlens_padded", ints({0, 4})}},
             {"tokens.safetensors: cu_seqlens_padded without cu_seqlens", "add cu_seqlens"});
  expect_bad({{"input_ids", ids}, {"lables", ids}}, {"tokens.safetensors", "\"lables\"", "did you mean \"labels\"?"});
  expect_bad({{"input_ids", ids}, {"cu_seqlens", ints({0, 3, 4})}, {"cu_seqlens_padded", ints({0, 2, 4})}},
             {"document 0 has 3 tokens", "room for 2"});
  expect_bad({{"input_ids", ids}, {"position_ids", ints({0, 1})}}, {"position_ids has 2 elements, expected 4"});
  expect_bad({{"input_ids", ids}, {"labels", ints({0, 1, 2})}}, {"labels has 3 elements, expected 4"});
  expect_bad({{"input_ids", ids}, {"pixel_values", at::zeros({2, 2})}}, {"pixel_values and image_grid_thw", "both"});
  expect_bad({{"input_ids", ids}, {"pixel_values", at::zeros({2, 2})}, {"image_grid_thw", ints({1, 1, 2})}},
             {"image_grid_thw must be I64 with two dimensions", "with 1"});
  expect_bad({{"input_ids", ids}, {"pixel_values", at::zeros({2, 2})}, {"image_grid_thw", at::ones({1, 2}, at::kLong)}},
             {"image_grid_thw has shape [1, 2]", "[images, 3]"});
  const std::string model = dir.file("model");
}

TEST_F(Score, InputThatDoesNotFitTheModelIsNamedWithItsFile) {
  testing::make_tiny_model(dir.file("model"));
  const auto expect_unfit = [&](const std::vector<NamedTensor>& tensors, std::vector<std::string> parts,
                                const ScoreOptions& options = {}) {
    const ScoreInput input = read_score_tokens(write_tokens(tensors));
    parts.push_back(dir.file("tokens.safetensors") + ": ");
    expect_error(ErrorCode::kInvalidArgument, parts, [&] { run(dir.file("model"), input, options); });
  };
  const at::Tensor ids = ints({10, 11, 12, 13});
  expect_unfit({{"input_ids", ints({10, 999})}}, {"input_ids[1] = 999", "0 to 256", "tokenizer"});
  expect_unfit({{"input_ids", ids}, {"labels", ints({1, -100, 3, 999})}}, {"labels[3] = 999", "0 to 256", "-100"});
  expect_unfit({{"input_ids", ids}, {"labels", at::full_like(ids, -100)}}, {"predicts nothing", "all labels are -100"});
  expect_unfit({{"input_ids", ints({10})}}, {"predicts nothing", "no document has 2 tokens"});
  expect_unfit({{"input_ids", ids}, {"position_ids", ids.repeat({3, 1})}},
               {"position_ids have shape [3, 4]", "[tokens]"});
  expect_unfit({{"input_ids", ids}}, {"mask is 3 x 3", "4 tokens", "--mask causal:4"}, {.mask = causal_mask(3, 3)});
  const ScoreInput text = read_score_text(dir.file("model"), dir.write("a.txt", "h"));
  expect_error(ErrorCode::kInvalidArgument, {dir.file("a.txt") + ": it predicts nothing"},
               [&] { run(dir.file("model"), text); });
}

TEST_F(Score, AModelThatMakesNaNsIsNamedAndWritesNothing) {
  testing::make_tiny_model(dir.file("model"));
  const std::string weights = dir.file("model/model.safetensors");
  const std::string broken = "model.layers.1.post_attention_layernorm";
  std::vector<NamedTensor> tensors;
  const SafetensorsFile whole = SafetensorsFile::open(weights);
  for (const std::string& name : whole.names()) tensors.push_back({name, whole.tensor(name).clone()});
  for (NamedTensor& named : tensors) {
    if (named.name == broken + ".weight") named.tensor[3] = std::nan("");
  }
  write_safetensors(weights, tensors, {});
  const ScoreInput input = read_score_tokens(write_tokens({{"input_ids", at::arange(10)}}));
  const std::string logits_file = dir.file("logits.safetensors");
  for (const int64_t cp : {1, 2}) {
    expect_error(ErrorCode::kNonFinite,
                 {dir.file("tokens.safetensors"), "whose output is not finite is " + broken,
                  "its parameter " + broken + ".weight", "Nothing was written"},
                 [&] { run(dir.file("model"), input, {.logits_file = logits_file, .cp = cp, .chunk_size = 3}); });
    EXPECT_EQ(dir.num_files(), 2u) << "the model and its tokens alone, cp " << cp;
  }
}

TEST_F(Score, UnfinishedLogitsLeaveNoFile) {
  testing::make_tiny_model(dir.file("model"));
  const ScoreInput input = read_score_tokens(write_tokens({{"input_ids", ints({10, 11, 12})}}));
  const std::string missing_folder = dir.file("nowhere/logits.safetensors");
  expect_error(ErrorCode::kIo, {missing_folder},
               [&] { run(dir.file("model"), input, {.logits_file = missing_folder}); });
}

// tools/test makes this folder; without it these tests are skipped.
std::string smollm2_dir() { return ATTNMUX_BUILD_DIR "/data/smollm2"; }
#define SKIP_WITHOUT_SMOLLM2() \
  if (!fs::exists(smollm2_dir() + "/config.json")) GTEST_SKIP() << "no " << smollm2_dir() << "; tools/test makes it"

TEST_F(Score, SmolLm2On8kTokensOfTheJargonFileEqualsTransformers) {
  SKIP_WITHOUT_SMOLLM2();
  const SafetensorsFile golden = SafetensorsFile::open(golden_dir("smollm2_score.safetensors"));
  const ScoreInput input = read_score_tokens(write_tokens({{"input_ids", golden.tensor("input_ids").to(at::kLong)}}));
  const std::string logits_file = dir.file("logits.safetensors");
  const ScoreResult result = run(smollm2_dir(), input, {.logits_file = logits_file});
  EXPECT_NEAR(result.loss, golden.tensor("loss").item<double>(), 1e-4);
  const at::Tensor logits = SafetensorsFile::open(logits_file).tensor("logits");
  const at::Tensor columns = golden.tensor("columns").to(at::kLong);
  EXPECT_TRUE(close(logits.index_select(1, columns), golden.tensor("logits"), {.absolute = 2e-3}));
  const at::Tensor labels = input.labels.clamp_min(0).unsqueeze(1);
  EXPECT_TRUE(close(logits.gather(1, labels).squeeze(1), golden.tensor("label_logits"), {.absolute = 2e-3}));
  EXPECT_TRUE(close(at::logsumexp(logits, -1), golden.tensor("logsumexp"), {.absolute = 2e-3}));
}

TEST_F(Score, SmolLm2FirstTrainingStepsEqualTorch) {
  SKIP_WITHOUT_SMOLLM2();
  // ATTNMUX_GOLDEN_STEPS=20 runs all that the golden holds.
  const char* steps = std::getenv("ATTNMUX_GOLDEN_STEPS");
  testing::expect_steps_equal_torch(smollm2_dir(), golden_dir("smollm2_train.safetensors"), "magi",
                                    steps == nullptr ? 3 : std::atoll(steps), /*tolerance=*/1e-3);
}

}  // namespace
}  // namespace attnmux
