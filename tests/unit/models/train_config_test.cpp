// Strict TOML of a training run.
#include "models/train/train_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "models/train/check_launch.h"
#include "tests/unit/expect_error.h"
#include "tests/common/temp_dir.h"

namespace attnmux {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kMinimal[] = R"([model]
path = "model"
[data]
kind = "jsonl"
path = ["a.jsonl", "/data/b.jsonl"]
seq_len = 64
[train]
steps = 10
output = "../runs/x"
)";

TrainConfig parse(const std::string& text, const std::vector<std::string>& sets = {}) {
  return parse_train_config(text, "/configs/f.toml", sets);
}

void expect_config_error(const std::string& text, const std::vector<std::string>& parts,
                         const std::vector<std::string>& sets = {}) {
  expect_error(ErrorCode::kConfig, parts, [&] { parse(text, sets); });
}

std::string with(const std::string& addition) { return kMinimal + addition; }

TEST(TrainConfig, MinimalFileHasDefaultsAndPathsRelativeToIt) {
  const TrainConfig config = parse(kMinimal);
  EXPECT_EQ(config.model.path, "/configs/model");
  EXPECT_THAT(config.data.path, ElementsAre("/configs/a.jsonl", "/data/b.jsonl"));
  EXPECT_EQ(config.data.kind, DataKind::kJsonl);
  EXPECT_EQ(config.train.output, "/runs/x");
  EXPECT_EQ(config.train.steps, 10);
  EXPECT_EQ(config.train.lr, 5e-5);
  EXPECT_EQ(config.train.grad_clip, 1.0);
  EXPECT_EQ(config.train.dtype, "fp32");
  EXPECT_TRUE(config.data.packing);
  EXPECT_EQ(config.parallel.cp, 1);
  EXPECT_EQ(config.attention_file, "/configs/f.toml");
  EXPECT_EQ(config.attention_toml, kMinimal);
}

TEST(TrainConfig, SetReplacesAndAdds) {
  const TrainConfig config =
      parse(kMinimal, {"train.steps=3", "train.lr=1e-3", "train.dtype=bf16", "model.path=m", "data.packing=false",
                       "data.path=[\"q.jsonl\"]", "model.attn_implementation=magi"});
  const std::string here = std::filesystem::current_path().string();
  EXPECT_EQ(config.train.steps, 3);
  EXPECT_EQ(config.train.lr, 1e-3);
  EXPECT_EQ(config.train.dtype, "bf16");
  EXPECT_EQ(config.model.path, here + "/m");
  EXPECT_THAT(config.data.path, ElementsAre(here + "/q.jsonl"));
  EXPECT_FALSE(config.data.packing);
  EXPECT_THAT(config.attention_toml, HasSubstr("attn_implementation = 'magi'"));
  EXPECT_EQ(config.attention_file, "/configs/f.toml with --set");
}

TEST(TrainConfig, AWholeNumberIsTakenWhereANumberIsAsked) { EXPECT_EQ(parse(with("lr = 1\n")).train.lr, 1.0); }

TEST(TrainConfig, UnknownKeysNameThePlaceAndTheNearestSpelling) {
  expect_config_error(with("warmup_step = 3\n"),
                      {"/configs/f.toml:10:1: ", "unknown key \"train.warmup_step\"", "\"train.warmup_steps\""});
  expect_config_error(with("[trian]\nx = 1\n"), {"f.toml:10:2", "unknown table \"trian\"", "\"train\""});
  expect_config_error(with("[parallel]\ncpp = 1\n"), {"f.toml:11:1", "\"parallel.cpp\"", "\"parallel.cp\""});
  expect_config_error(kMinimal, {"--set train.stepz=4: ", "\"train.stepz\"", "\"train.steps\""}, {"train.stepz=4"});
}

TEST(TrainConfig, AllProblemsComeTogether) {
  expect_config_error("[model]\n[data]\nkind = \"jsnl\"\npath = \"a\"\nseq_len = 1\n[train]\nsteps = 1.5\nlr = -1\n",
                      {"[model] needs the key path", "data.kind: unknown value \"jsnl\"; did you mean \"jsonl\"?",
                       "f.toml:4:8: data.path is a string, expected an array of strings",
                       "f.toml:5:11: data.seq_len is 1, allowed are 2 and more",
                       "f.toml:7:9: train.steps is a number, expected an integer",
                       "f.toml:8:6: train.lr is -1, allowed are 0 and more", "[train] needs the key output"});
}

TEST(TrainConfig, RefusesWhatThisVersionDoesNotDo) {
  expect_config_error(with("dtype = \"fp16\"\n"), {"train.dtype", "fp16", "fp32, bf16"});
  expect_config_error(with("warmup_steps = 11\n"), {"train.warmup_steps is 11, more than train.steps = 10"});
  expect_config_error(with("lr = nan\n"), {"train.lr"});
}

TEST(TrainConfig, RanksDecideTheBatchAndTheLongestChunk) {
  EXPECT_EQ(parse(with("")).train.batch_size, 1);
  EXPECT_EQ(parse(with("[parallel]\ndp = 3\n")).train.batch_size, 3);
  EXPECT_EQ(parse(with("batch_size = 6\n[parallel]\ndp = 3\n")).train.batch_size, 6);
  expect_config_error(with("batch_size = 4\n[parallel]\ndp = 3\n"),
                      {"train.batch_size is 4", "multiples of parallel.dp = 3"});
  expect_config_error(with("[parallel]\ncp = 2\nchunk_size = 65\n"),
                      {"parallel.chunk_size is 65", "data.seq_len = 64", "at most 32"});
  expect_config_error(with("[parallel]\ncp = 0\nchunk_size = 0\nstages = -1\n"),
                      {"parallel.cp is 0", "parallel.chunk_size is 0", "parallel.stages is -1"});
  expect_config_error(with("[parallel]\nstages = 1025\nbackward_stages = 5000\n"),
                      {"parallel.stages is 1025, at most 1024", "parallel.backward_stages is 5000"});
  expect_config_error(with("[parallel]\ndp = 2\ncp = 129\n"), {"parallel.cp is 258, at most 256", "dp * cp", "mpi"});
  expect_config_error(with("[parallel]\ncp = 5000000000\n"), {"parallel.cp is 5000000000, at most 65536"});
  expect_config_error(with("[parallel]\nstages = 2\nbackward_stages = 3\nkeep_remote_keys = true\n"),
                      {"parallel.backward_stages is 3", "stages = 2", "keep_remote_keys"});
  expect_config_error(with("[parallel]\nstages = 2\ncalibration = \"c.json\"\n"),
                      {"parallel.calibration decides nothing", "set one of them to 0"});
}

// --- the ranks that a launcher started, as each of them sees it ---

using Variables = std::map<std::string, std::string>;

struct Launch {
  const char* name;
  std::vector<std::string> sets;
  Variables variables;                // beside the rank's
  const char* rank;                   // variable that names it
  std::vector<std::string> expected;  // parts of the error; none: fits
};

void PrintTo(const Launch& launch, std::ostream* out) { *out << launch.name; }

class TrainLaunch : public ::testing::TestWithParam<Launch> {};

TEST_P(TrainLaunch, IsCheckedOnEveryRank) {
  const Launch& launch = GetParam();
  std::vector<std::string> sets = launch.sets;
  sets.emplace_back("parallel.chunk_size=8");
  const TrainConfig config = parse(kMinimal, sets);
  for (const std::string rank : {"0", "1"}) {
    const auto check = [&] {
      check_launch(config, launched_rank([&](const std::string& name) -> std::optional<std::string> {
                     if (name == launch.rank) return rank;
                     const auto found = launch.variables.find(name);
                     if (found == launch.variables.end()) return std::nullopt;
                     return found->second;
                   }));
    };
    if (launch.expected.empty()) {
      EXPECT_NO_THROW(check());
    } else {
      expect_error(ErrorCode::kUsage, launch.expected, check);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    , TrainLaunch,
    ::testing::Values(Launch{"no_launcher", {"parallel.group=mpi", "parallel.cp=2"}, {}, "", {}},
                      Launch{"mpirun_of_as_many",
                             {"parallel.group=mpi", "parallel.cp=2"},
                             {{"OMPI_COMM_WORLD_SIZE", "2"}},
                             "OMPI_COMM_WORLD_RANK",
                             {}},
                      Launch{"threads_under_mpirun",
                             {"parallel.cp=2"},
                             {{"OMPI_COMM_WORLD_SIZE", "2"}},
                             "OMPI_COMM_WORLD_RANK",
                             {"/configs/f.toml: parallel.group = \"threads\"", "mpirun has started several",
                              "OMPI_COMM_WORLD_SIZE=2", "\"mpi\""}},
                      Launch{"more_processes_than_ranks",
                             {"parallel.group=mpi", "parallel.cp=2"},
                             {{"OMPI_COMM_WORLD_SIZE", "3"}},
                             "OMPI_COMM_WORLD_RANK",
                             {"/configs/f.toml: ", "parallel.cp = 2 make 2 ranks", "mpirun has started 3",
                              "OMPI_COMM_WORLD_SIZE=3", "start 2 processes"}},
                      Launch{"cp_does_not_divide_the_world",
                             {"parallel.group=mpi", "parallel.cp=3"},
                             {{"SLURM_NTASKS", "4"}, {"SLURM_STEP_ID", "0"}},
                             "SLURM_PROCID",
                             {"parallel.cp = 3 make 3 ranks", "srun has started 4", "SLURM_NTASKS=4",
                              "parallel.dp or parallel.cp"}},
                      Launch{"world_size_of_another_launch",
                             {"parallel.group=mpi", "parallel.dp=2", "parallel.cp=2"},
                             {{"WORLD_SIZE", "8"}},
                             "RANK",
                             {"parallel.dp = 2 and parallel.cp = 2 make 4 ranks", "WORLD_SIZE=8"}},
                      Launch{"launchers_that_contradict_each_other",
                             {"parallel.group=mpi", "parallel.cp=2"},
                             {{"WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_SIZE", "2"}, {"OMPI_COMM_WORLD_RANK", "1"}},
                             "RANK",
                             {"WORLD_SIZE=4", "OMPI_COMM_WORLD_SIZE=2", "contradict"}}),
    [](const auto& info) { return info.param.name; });

TEST(TrainConfig, SyntaxErrorsNameThePlace) {
  expect_config_error("[model\npath = 3\n", {"/configs/f.toml:1:7"});
  expect_error(ErrorCode::kUsage, {"--set steps=3", "table.key=value"}, [] { parse(kMinimal, {"steps=3"}); });
  expect_error(ErrorCode::kBadFile, {"missing.toml"}, [] { load_train_config("/nowhere/missing.toml", {}); });
}

TEST(TrainConfig, ResolvedConfigGivesTheSameRunFromAnyFolder) {
  const std::string rules =
      "[attention]\nplugins = [\"x.so\"]\n[[attention.rules]]\nmatch = \"**\"\nbackend = \"magi\"\n";
  const TrainConfig config = parse(with(rules), {"train.seed=5", "train.lr=0.1"});
  const std::string resolved = to_toml(config);
  const TrainConfig again = parse_train_config(resolved, "/elsewhere/config.toml", {});
  EXPECT_EQ(to_toml(again), resolved);
  EXPECT_EQ(again.train.seed, 5);
  EXPECT_EQ(again.train.lr, 0.1);
  EXPECT_EQ(again.train.output, "/runs/x");
  EXPECT_THAT(resolved, HasSubstr("/configs/x.so"));
  EXPECT_THAT(resolved, HasSubstr("magi"));
}

TEST(TrainConfig, DifferencesNameKeysThatDecideTheNumbers) {
  const std::string before = to_toml(parse(kMinimal));
  EXPECT_TRUE(differences(before, before).empty());
  EXPECT_TRUE(
      differences(before, to_toml(parse(kMinimal, {"train.output=/y", "train.save_every=3", "parallel.group=mpi"})))
          .empty());
  EXPECT_THAT(differences(before, to_toml(parse(kMinimal, {"train.lr=0.5", "data.seq_len=32"}))),
              ElementsAre("data.seq_len: was 64, is 32", "train.lr: was 5e-05, is 0.5"));
}

}  // namespace
}  // namespace attnmux
