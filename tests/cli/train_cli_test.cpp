// `attnmux explain`, `train` and `score` as a process, on a model of a few thousand weights.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "models/io/safetensors.h"
#include "run_program.h"
#include "tests/common/tiny_model.h"

namespace attnmux {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using testing::Finished;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::run_program;
using testing::RunOptions;

class TrainCli : public ::testing::Test {
 protected:
  void SetUp() override {
    testing::make_tiny_model(folder.file("model"));
    std::string text;
    for (int i = 0; i < 200; ++i) text += "entry " + std::to_string(i) + " of a small text. ";
    testing::write(folder.file("text.txt"), text);
    write_config("[[attention.rules]]\nmatch = \"**\"\nbackend = \"sdpa\"\n");
  }

  // `attention`: the rules; `model`: more keys of [model].
  void write_config(const std::string& attention, const std::string& model = "") {
    testing::write(config, "[model]\npath = \"model\"\n" + model +
                               "[data]\nkind = \"text\"\npath = [\"text.txt\"]\nseq_len = 32\n"
                               "[train]\nsteps = 3\nlr = 1e-3\nsave_every = 2\noutput = \"run\"\n" +
                               attention);
  }

  void write_model_key(const std::string& key, const json& value) {
    json document = json::parse(testing::contents(folder.file("model/config.json")));
    document[key] = value;
    testing::write(folder.file("model/config.json"), document.dump());
  }

  void expect_refused(const Finished& finished, int status, const std::vector<std::string>& parts) {
    EXPECT_EQ(finished.status, status) << finished.err;
    for (const std::string& part : parts) EXPECT_THAT(finished.err, HasSubstr(part));
    EXPECT_FALSE(fs::exists(folder.file("run"))) << "something was written";
  }

  json explained() {
    const Finished finished = run_program({"explain", config, "--json"});
    EXPECT_EQ(finished.status, 0) << finished.err;
    return json::parse(finished.out, nullptr, /*allow_exceptions=*/false);
  }

  testing::TemporaryFolder folder;
  std::string config = folder.file("train.toml");
};

TEST_F(TrainCli, ExplainNamesBackendRuleAndTheOthersAnswers) {
  const json document = explained();
  ASSERT_EQ(document["modules"].size(), 2u);
  const json& module = document["modules"][1];
  EXPECT_EQ(module["path"], "model.layers.1.self_attn");
  EXPECT_EQ(module["role"], "language");
  EXPECT_EQ(module["backend"], "sdpa");
  EXPECT_THAT(module["rule"]["origin"].get<std::string>(), HasSubstr("train.toml:12:1"));
  bool reference = false;
  for (const json& other : module["others"]) {
    if (other["backend"] == "reference") reference = other["takes_it"].get<bool>() && other["reasons"].empty();
  }
  EXPECT_TRUE(reference);

  const Finished text = run_program({"explain", config});
  EXPECT_THAT(text.out, AllOf(HasSubstr("model.layers.0.self_attn"), HasSubstr("train.toml:12:1"),
                              HasSubstr("reference would take it, too")));
}

TEST_F(TrainCli, ExplainReadsNoWeights) {
  fs::remove(folder.file("model/model.safetensors"));
  EXPECT_EQ(explained()["modules"].size(), 2u);
}

TEST_F(TrainCli, Sel10ExplainNamesConfigJsonAndTheEnvironmentAsOrigins) {
  write_config("");
  write_model_key("_attn_implementation", "reference");
  EXPECT_THAT(explained()["modules"][0]["rule"]["origin"].get<std::string>(),
              HasSubstr("config.json: _attn_implementation"));
  const Finished finished =
      run_program({"explain", config, "--json"}, {.environment = {{"ATTNMUX_ATTN_IMPLEMENTATION", "sdpa"}}});
  EXPECT_THAT(finished.out, HasSubstr("environment: ATTNMUX_ATTN_IMPLEMENTATION"));
}

TEST_F(TrainCli, SelectionErrorsComeTogetherBeforeAnythingIsWritten) {
  write_config(
      "[[attention.rules]]\nmatch = \"model.layers.0.*\"\nbackend = \"spda\"\n"
      "[[attention.rules]]\nmatch = \"vision.**\"\nbackend = \"sdpa\"\n");
  for (const char* command : {"explain", "train"}) {
    expect_refused(run_program({command, config}), 2,
                   {"\"spda\"", "did you mean \"sdpa\"?", "vision.**", "matches no attention module", "no rule matches",
                    "model.layers.1.self_attn", "train.toml:12:1", "train.toml:15:1"});
  }
}

TEST_F(TrainCli, UnknownKeysAreNamedWithLineColumnAndNearestSpelling) {
  write_config("[[attention.rules]]\nmatch = \"**\"\nbakend = \"sdpa\"\n");
  expect_refused(run_program({"train", config}), 2, {"train.toml:14:1", "\"bakend\"", "\"backend\""});
  write_config("[[attention.rules]]\nmatch = \"**\"\nbackend = \"sdpa\"\n", "pth = \"x\"\n");
  expect_refused(run_program({"train", config}), 2, {"train.toml:3:1", "pth", "path"});
}

TEST_F(TrainCli, DryRunSaysWhatItWouldDoAndWritesNothing) {
  const Finished finished = run_program({"train", config, "--dry-run", "--set", "train.steps=7"});
  EXPECT_EQ(finished.status, 0) << finished.err;
  EXPECT_THAT(finished.out, AllOf(HasSubstr("7"), HasSubstr("sdpa"), HasSubstr("run")));
  EXPECT_FALSE(fs::exists(folder.file("run")));
}

TEST_F(TrainCli, APipeGetsPlainLinesAndTheRunFolderIsComplete) {
  const Finished finished = run_program({"train", config});
  ASSERT_EQ(finished.status, 0) << finished.err;
  EXPECT_THAT(finished.out, AllOf(HasSubstr("\n1/3  loss "), HasSubstr("\n3/3  loss "), HasSubstr("report.html"),
                                  Not(HasSubstr("\r"))));
  for (const char* name : {"run/config.toml", "run/metrics.jsonl", "run/report.html", "run/checkpoints"}) {
    EXPECT_TRUE(fs::exists(folder.file(name))) << name;
  }
  std::istringstream lines(testing::contents(folder.file("run/metrics.jsonl")));
  int64_t last = 0;
  for (std::string line; std::getline(lines, line);) last = json::parse(line)["step"].get<int64_t>();
  EXPECT_EQ(last, 3);

  // The folder holds a run now: it is not overwritten, and --resume finds it done.
  const Finished again = run_program({"train", config});
  EXPECT_EQ(again.status, 2);
  EXPECT_THAT(again.err, HasSubstr("--resume"));
  EXPECT_EQ(run_program({"train", config, "--resume"}).status, 0);
}

TEST_F(TrainCli, SeveralProcessesAreRefused) {
  expect_refused(run_program({"train", config}, {.environment = {{"WORLD_SIZE", "2"}}}), 2, {"WORLD_SIZE=2"});
}

TEST_F(TrainCli, RanksAsProcessesTrainAsRanksAsThreads) {
  if (std::string(ATTNMUX_MPIRUN).empty()) GTEST_SKIP() << "no mpirun; tools/setup installs it";
  const auto losses = [&](const std::string& group, const RunOptions& options) {
    const std::string run = folder.file(group);
    const Finished finished =
        run_program({"train", config, "--set", "parallel.group=" + group, "--set", "parallel.cp=2", "--set",
                     "parallel.chunk_size=4", "--set", "train.output=" + run},
                    options);
    EXPECT_EQ(finished.status, 0) << finished.err;
    std::istringstream lines(testing::contents(run + "/metrics.jsonl"));
    std::vector<double> values;
    for (std::string line; std::getline(lines, line);) values.push_back(json::parse(line)["loss"].get<double>());
    return values;
  };
  const std::vector<double> threads = losses("threads", {});
  const std::vector<double> processes =
      losses("mpi", {.environment = {{"OMPI_ALLOW_RUN_AS_ROOT", "1"}, {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"}},
                     .launcher = {ATTNMUX_MPIRUN, "--oversubscribe", "-n", "2"}});
  EXPECT_EQ(threads.size(), 3u);
  EXPECT_THAT(processes, ::testing::Pointwise(::testing::DoubleNear(1e-5), threads));
}

TEST_F(TrainCli, BadModelsAreRefused) {
  testing::write(folder.file("model/model.safetensors"),
                 testing::contents(folder.file("model/model.safetensors")).substr(0, 1000));
  expect_refused(run_program({"train", config}), 2, {"model.safetensors"});
  write_model_key("model_type", "mamba");
  write_model_key("architectures", {"MambaForCausalLM"});
  expect_refused(run_program({"train", config}), 2, {"config.json", "amba"});
}

TEST_F(TrainCli, ScoreAnswersWithTheContractsKeys) {
  const std::vector<std::string> arguments{
      "score", "--model", folder.file("model"), "--text", folder.file("text.txt"), "--json", "--config", config};
  const Finished finished = run_program(arguments);
  ASSERT_EQ(finished.status, 0) << finished.err;
  const json document = json::parse(finished.out, nullptr, /*allow_exceptions=*/false);
  EXPECT_EQ(document["tokens"].get<size_t>(), testing::contents(folder.file("text.txt")).size()) << "tokens are bytes";
  EXPECT_NEAR(document["perplexity"].get<double>(), std::exp(document["loss"].get<double>()), 1e-6);
  EXPECT_EQ(document["documents"].size(), 1u);
}

TEST_F(TrainCli, ScoreWritesLogitsInTokenOrder) {
  const at::Tensor ids = at::arange(10, at::kLong);
  write_safetensors(folder.file("tokens.safetensors"), {{"input_ids", ids}, {"cu_seqlens", at::tensor({0, 4, 10})}},
                    {});
  const Finished finished =
      run_program({"score", "--model", folder.file("model"), "--tokens", folder.file("tokens.safetensors"), "--config",
                   config, "--logits", folder.file("logits.safetensors"), "--json"});
  ASSERT_EQ(finished.status, 0) << finished.err;
  EXPECT_EQ(json::parse(finished.out)["documents"].size(), 2u);
  const at::Tensor logits = SafetensorsFile::open(folder.file("logits.safetensors")).tensor("logits");
  EXPECT_EQ(logits.size(0), 10);
  EXPECT_EQ(logits.scalar_type(), at::kFloat);
}

TEST_F(TrainCli, ScoreReadsImagesOverRanks) {
  const std::string model = ATTNMUX_SOURCE_DIR "/tests/golden/models/qwen2_5_vl";
  const SafetensorsFile golden = SafetensorsFile::open(model + "/three_images.safetensors");
  std::vector<NamedTensor> tensors;
  for (const char* name : {"input_ids", "pixel_values", "image_grid_thw"})
    tensors.push_back({name, golden.tensor(name)});
  write_safetensors(folder.file("tokens.safetensors"), tensors, {});
  const std::vector<std::string> arguments{"score",
                                           "--model",
                                           model,
                                           "--tokens",
                                           folder.file("tokens.safetensors"),
                                           "--logits",
                                           folder.file("logits.safetensors"),
                                           "--cp",
                                           "2",
                                           "--chunk-size",
                                           "8",
                                           "--json"};
  const Finished finished = run_program(arguments);
  ASSERT_EQ(finished.status, 0) << finished.err;
  EXPECT_NEAR(json::parse(finished.out)["loss"].get<double>(), golden.tensor("loss").item<double>(), 1e-5);
  const at::Tensor logits = SafetensorsFile::open(folder.file("logits.safetensors")).tensor("logits");
  const at::Tensor expected = golden.tensor("logits");
  EXPECT_LE((logits - expected).abs().max().item<double>(), 1e-5 * expected.abs().max().item<double>());
}

TEST_F(TrainCli, BenchTrainMeasuresSteps) {
  const Finished finished = run_program({"bench", "train", "--model", folder.file("model"), "--config", config,
                                         "--seq-len", "32", "--documents", "2", "--reps", "2", "--json"});
  ASSERT_EQ(finished.status, 0) << finished.err;
  const json rows = json::parse(finished.out, nullptr, /*allow_exceptions=*/false);
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_GT(rows[0]["tokens_per_s"].get<double>(), 0);
  EXPECT_EQ(rows[0]["backends"]["sdpa"], 2);
}

struct BadScore {
  const char* name;
  std::vector<std::string> arguments;
  const char* expected;
};
class BadScoreTest : public TrainCli, public ::testing::WithParamInterface<BadScore> {};

TEST_P(BadScoreTest, IsRefused) {
  testing::write(folder.file("empty.txt"), "");
  testing::write(folder.file("broken.txt"), "abc\xff\xfe");
  std::vector<std::string> arguments{"score"};
  arguments.insert(arguments.end(), GetParam().arguments.begin(), GetParam().arguments.end());
  const Finished finished = run_program(arguments, {.folder = folder.path()});
  EXPECT_EQ(finished.status, 2) << finished.err;
  EXPECT_EQ(finished.out, "");
  EXPECT_THAT(finished.err, AllOf(HasSubstr("error: "), HasSubstr(GetParam().expected)));
}

const BadScore kBadScores[] = {
    {"neither", {"--model", "model"}, "--text or --tokens"},
    {"both", {"--model", "model", "--text", "text.txt", "--tokens", "t"}, "--text or --tokens"},
    {"no_model", {"--model", "nowhere", "--text", "text.txt"}, "nowhere/config.json"},
    {"no_text", {"--model", "model", "--text", "nowhere.txt"}, "nowhere.txt"},
    {"empty_text", {"--model", "model", "--text", "empty.txt", "--config", "train.toml"}, "empty.txt"},
    {"invalid_utf8", {"--model", "model", "--text", "broken.txt", "--config", "train.toml"}, "broken.txt"},
    {"mask_of_another_length",
     {"--model", "model", "--text", "text.txt", "--config", "train.toml", "--mask", "causal:7"},
     "7"},
    {"ranks", {"--model", "model", "--text", "text.txt", "--config", "train.toml", "--cp", "0"}, "0 ranks"},
    {"dtype", {"--model", "model", "--text", "text.txt", "--dtype", "fp23"}, "fp32"},
    {"no_config", {"--model", "model", "--text", "text.txt", "--config", "nowhere.toml"}, "nowhere.toml"},
};
INSTANTIATE_TEST_SUITE_P(Cases, BadScoreTest, ::testing::ValuesIn(kBadScores),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace attnmux
