// `attnmux explain`, `train` and `score` as a process, on a model of a few thousand weights.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
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

int count(const std::string& text, const std::string& part) {
  int found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

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

  TempDir folder;
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

TEST_F(TrainCli, AFileOfTheWorkingFolderNeedsNoFolderInItsName) {
  const Finished explained = run_program({"explain", "train.toml"}, {.folder = folder.file("")});
  EXPECT_EQ(explained.status, 0) << explained.err;
  const Finished trained = run_program({"train", "train.toml"}, {.folder = folder.file("")});
  EXPECT_EQ(trained.status, 0) << trained.err;
  EXPECT_TRUE(fs::exists(folder.file("run/report.html")));
}

TEST_F(TrainCli, PlacesThatCannotBeWrittenToAreFoundBeforeTheWork) {
  for (const char* output : {"text.txt/run", "/dev/full"}) {
    const std::string set = "train.output=" + (output[0] == '/' ? output : folder.file(output));
    expect_refused(run_program({"train", config, "--dry-run", "--set", set}), 2, {"train.output", "name"});
  }
  expect_refused(run_program({"train", config, "--trace", folder.file("none/trace.json")}), 2,
                 {"none/trace.json", "none is no folder"});
}

TEST_F(TrainCli, ASetIsOneValue) {
  expect_refused(run_program({"train", config, "--set", "train.steps=1\nlr=2"}), 2, {"--set", "repeat --set"});
}

TEST_F(TrainCli, ResumingNothingSaysSo) {
  const Finished finished = run_program({"train", config, "--resume"});
  EXPECT_EQ(finished.status, 0) << finished.err;
  EXPECT_THAT(finished.err, HasSubstr("nothing to resume"));
}

TEST_F(TrainCli, ADryRunWithoutItsLauncherSaysWhatWasNotChecked) {
  const Finished finished = run_program({"train", config, "--dry-run", "--set", "parallel.group=mpi"});
  if (finished.err.find("unknown") != std::string::npos) GTEST_SKIP() << "no group mpi in this build";
  EXPECT_EQ(finished.status, 0) << finished.err;
  EXPECT_THAT(finished.err, HasSubstr("no launcher"));
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

class MpirunCli : public TrainCli {
 protected:
  void SetUp() override {
    if (std::string(ATTNMUX_MPIRUN).empty()) GTEST_SKIP() << "no mpirun; tools/setup installs it";
    TrainCli::SetUp();
  }

  // More processes than cores, each with one thread; files of the launch where no other mpirun makes and removes them.
  RunOptions mpirun(const std::string& ranks) const {
    return {.environment = {{"OMPI_ALLOW_RUN_AS_ROOT", "1"},
                            {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"},
                            {"OMP_NUM_THREADS", "1"},
                            {"TMPDIR", folder.path()}},
            .launcher = {ATTNMUX_MPIRUN, "--oversubscribe", "--bind-to", "none", "-n", ranks}};
  }

  std::vector<std::string> train(const std::string& run, const std::vector<std::string>& sets) const {
    std::vector<std::string> arguments{"train", config, "--set", "train.output=" + folder.file(run)};
    for (const std::string& set : sets) arguments.insert(arguments.end(), {"--set", set});
    return arguments;
  }

  std::vector<double> losses(const std::string& run) const {
    std::istringstream lines(testing::contents(folder.file(run + "/metrics.jsonl")));
    std::vector<double> values;
    for (std::string line; std::getline(lines, line);) values.push_back(json::parse(line)["loss"].get<double>());
    return values;
  }
};

TEST_F(MpirunCli, RanksAsProcessesTrainAsOneRank) {
  const auto with = [](std::vector<std::string> sets) {
    for (const char* set : {"train.steps=10", "train.batch_size=2", "train.save_every=0"}) sets.emplace_back(set);
    return sets;
  };
  ASSERT_EQ(run_program(train("one", with({}))).status, 0);
  const std::vector<double> one = losses("one");
  ASSERT_EQ(one.size(), 10u);
  struct Ranks {
    std::string name, count;
    std::vector<std::string> sets;
  };
  for (const Ranks& ranks :
       {Ranks{"cp2", "2", {"parallel.cp=2", "parallel.chunk_size=4"}},
        Ranks{"cp4_two_ranks_without_tokens", "4", {"parallel.cp=4", "parallel.chunk_size=16"}},
        Ranks{"dp2_cp2", "4", {"parallel.dp=2", "parallel.cp=2", "parallel.chunk_size=4", "parallel.stages=2"}}}) {
    std::vector<std::string> sets = with(ranks.sets);
    sets.emplace_back("parallel.group=mpi");
    const Finished finished = run_program(train(ranks.name, sets), mpirun(ranks.count));
    EXPECT_EQ(finished.status, 0) << finished.err;
    EXPECT_EQ(count(finished.err, "error"), 0) << finished.err;
    EXPECT_THAT(losses(ranks.name), ::testing::Pointwise(::testing::DoubleNear(1e-5), one)) << ranks.name;
  }
}

TEST_F(MpirunCli, OneTraceHoldsTheSpansOfAllProcesses) {
  std::vector<std::string> arguments =
      train("traced", {"parallel.cp=2", "parallel.chunk_size=4", "parallel.group=mpi", "train.steps=1"});
  arguments.insert(arguments.end(), {"--trace", folder.file("trace.json")});
  const Finished finished = run_program(arguments, mpirun("2"));
  ASSERT_EQ(finished.status, 0) << finished.err;
  const json trace = json::parse(testing::contents(folder.file("trace.json")), nullptr, /*allow_exceptions=*/false);
  std::map<int, std::map<std::string, int>> spans;  // by process: of attention by name, of exchanges together
  double first = 1e18, last = 0;
  for (const json& event : trace["traceEvents"]) {
    if (event["ph"] != "X") continue;
    ++spans[event["pid"].get<int>()][event["cat"] == "attention" ? event["name"].get<std::string>() : "exchange"];
    first = std::min(first, event["ts"].get<double>());
    last = std::max(last, event["ts"].get<double>() + event["dur"].get<double>());
  }
  ASSERT_EQ(spans.size(), 2u) << trace;
  for (auto& [rank, counts] : spans) {
    EXPECT_GE(counts["exchange"], 6) << rank;
    counts.erase("exchange");
    const std::map<std::string, int> expected{
        {"forward host", 2}, {"forward stage 0", 2}, {"backward host", 2}, {"backward stage 0", 2}};
    EXPECT_EQ(counts, expected) << rank;
  }
  EXPECT_GE(first, 0);
  EXPECT_LT(last, 600e6) << "microseconds: one clock for both processes";
}

// One process of the two was started with another config: each says so, before anything is written.
TEST_F(MpirunCli, ProcessesOfDifferentRunsAreNamedOnEach) {
  std::vector<std::string> arguments = train("run", {"parallel.cp=2", "parallel.chunk_size=4", "parallel.group=mpi"});
  std::vector<std::string> other = arguments;
  arguments.insert(arguments.end(), {":", "-n", "1", std::string(ATTNMUX_BUILD_DIR) + "/bin/attnmux"});
  arguments.insert(arguments.end(), other.begin(), other.end());
  arguments.insert(arguments.end(), {"--set", "train.lr=0.5"});
  const Finished finished = run_program(arguments, mpirun("1"));
  expect_refused(finished, 1,
                 {"error: rank 0 of 2: the ranks do not agree on the run", " on rank 0", " on rank 1",  // by hash
                  "error: rank 1 of 2: the ranks do not agree on the run", "the same files"});
  EXPECT_EQ(count(finished.err, "error: "), 2);
}

// Every process that was started wrongly says so once, and writes nothing. More of them: train_config_test.
struct BadLaunch {
  const char* name;
  std::string size;  // of mpirun's world; empty: no launcher
  std::vector<std::string> parallel;
  std::vector<std::string> expected;
};

class BadLaunchTest : public TrainCli, public ::testing::WithParamInterface<BadLaunch> {};

TEST_P(BadLaunchTest, IsRefusedOnEveryRank) {
  const BadLaunch& bad = GetParam();
  std::vector<std::string> arguments{"train", config, "--set", "parallel.chunk_size=4"};
  for (const std::string& set : bad.parallel) arguments.insert(arguments.end(), {"--set", "parallel." + set});
  for (const std::string rank : {"0", "1"}) {
    RunOptions options;
    if (!bad.size.empty()) options.environment = {{"OMPI_COMM_WORLD_RANK", rank}, {"OMPI_COMM_WORLD_SIZE", bad.size}};
    const Finished finished = run_program(arguments, options);
    expect_refused(finished, 2, bad.expected);
    EXPECT_EQ(count(finished.err, "error: "), 1) << finished.err;
  }
}

const BadLaunch kBadLaunches[] = {
    {"more_processes_than_ranks",
     "3",
     {"cp=2", "group=mpi"},
     {"parallel.cp = 2 make 2 ranks", "OMPI_COMM_WORLD_SIZE=3"}},
    {"mpi_without_a_launcher", "", {"cp=2", "group=mpi"}, {"not started by a launcher", "mpirun -n N attnmux train"}},
    {"chunks_of_nothing", "2", {"cp=2", "chunk_size=0", "group=mpi"}, {"parallel.chunk_size is 0"}},
};
INSTANTIATE_TEST_SUITE_P(Cases, BadLaunchTest, ::testing::ValuesIn(kBadLaunches),
                         [](const auto& info) { return info.param.name; });

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
    {"ranks", {"--model", "model", "--text", "text.txt", "--config", "train.toml", "--cp", "0"}, "--cp 0: at least 1"},
    {"dtype", {"--model", "model", "--text", "text.txt", "--dtype", "fp23"}, "fp32"},
    {"no_config", {"--model", "model", "--text", "text.txt", "--config", "nowhere.toml"}, "nowhere.toml"},
};
INSTANTIATE_TEST_SUITE_P(Cases, BadScoreTest, ::testing::ValuesIn(kBadScores),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace attnmux
