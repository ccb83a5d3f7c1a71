// kill -9 at any moment, a checkpoint write included; a full disk: runs as processes of their own (train_program).
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "models/io/atomic_file.h"
#include "models/train/checkpoint.h"
#include "models/train/metrics.h"
#include "tests/common/tiny_model.h"
#include "tests/common/temp_dir.h"

namespace attnmux {
namespace {

namespace fs = std::filesystem;
using Arguments = std::vector<std::string>;

class TrainProcess : public ::testing::Test {
 protected:
  TrainProcess() {
    // Large enough for a checkpoint to take as long as several steps.
    testing::make_tiny_model(dir.file("model"), {.hidden_size = 64, .layers = 2});
    std::string lines;
    for (int i = 0; i < 10; ++i) {
      lines += nlohmann::json{{"text", "document " + std::to_string(i) + std::string(7 * i + 5, 'x')}}.dump() + "\n";
    }
    dir.write("train.jsonl", lines);
    dir.write("f.toml", R"([model]
path = "model"
attn_implementation = "magi"
[data]
kind = "jsonl"
path = ["train.jsonl"]
seq_len = 64
[train]
steps = 12
lr = 1e-3
save_every = 2
output = "run"
)");
  }

  // `more`: arguments of this run alone.
  pid_t start(const std::string& output, const Arguments& more) {
    Arguments arguments = {ATTNMUX_BUILD_DIR "/tests/train_program", dir.file("f.toml"), "--resume",
                           "train.output=" + dir.file(output)};
    arguments.insert(arguments.end(), sets.begin(), sets.end());
    arguments.insert(arguments.end(), more.begin(), more.end());
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    const std::string log = dir.file(output + ".log");
    posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
    pid_t pid = 0;
    EXPECT_EQ(posix_spawn(&pid, argv[0], &files, nullptr, argv.data(), environ), 0) << argv[0];
    posix_spawn_file_actions_destroy(&files);
    return pid;
  }

  static int wait_for(pid_t pid) {
    int status = 0;
    waitpid(pid, &status, 0);
    return status;
  }

  int run(const std::string& output, const Arguments& more = {}) { return wait_for(start(output, more)); }

  // Something happens to the process, or to its rank 0, once a file has grown to `bytes`.
  static Arguments at_size(const std::string& kind, uintmax_t bytes) {
    return {"--fault", kind, "0", "checkpoint", std::to_string(bytes)};
  }

  bool finished(int status) { return WIFEXITED(status) && WEXITSTATUS(status) == 0; }

  std::string log(const std::string& output) { return read_whole_file(dir.file(output + ".log")); }

  // What must be the same, whatever happened in between.
  std::vector<std::string> numbers(const std::string& output) {
    std::vector<std::string> lines;
    for (StepMetrics m : read_metrics(dir.file(output + "/metrics.jsonl"))) {
      m.tokens_per_s = 0;
      m.peak_bytes = 0;
      lines.push_back(to_json(m));
    }
    return lines;
  }

  std::string weights(const std::string& output) {
    return read_whole_file(dir.file(output + "/checkpoints/step-00000012/model.safetensors"));
  }

  TempDir dir;
  std::vector<std::string> sets;  // further keys of every run
};

TEST_F(TrainProcess, KilledInsideEachFileOfACheckpoint) {
  ASSERT_TRUE(finished(run("whole"))) << log("whole");
  const auto size = [&](const char* file) {
    return fs::file_size(dir.file("whole/checkpoints/step-00000012/") + file);
  };
  // Bytes at which the system kills the process while it writes: within the tokenizer's file, the header of the
  // weights, the weights, and behind them within the (larger) optimizer state.
  const std::vector<uintmax_t> limits = {size("tokenizer.json") / 2, size("model.safetensors") / 50,
                                         size("model.safetensors") - 1, size("model.safetensors") + 1000,
                                         size("trainer_state.safetensors") - 1};
  for (const uintmax_t limit : limits) {
    const std::string output = "limit" + std::to_string(limit);
    const int status = run(output, at_size("kill", limit));
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << log(output);
    EXPECT_FALSE(newest_checkpoint(dir.file(output)).has_value()) << "a cut checkpoint looks complete";
    ASSERT_TRUE(finished(run(output))) << log(output);
    EXPECT_EQ(numbers(output), numbers("whole")) << output;
    EXPECT_EQ(weights(output), weights("whole")) << output;
  }
}

TEST_F(TrainProcess, RanksOfOneProcessEndTogether) {
  sets = {"parallel.cp=2", "parallel.chunk_size=8"};
  ASSERT_TRUE(finished(run("whole"))) << log("whole");
  const uintmax_t limit = fs::file_size(dir.file("whole/checkpoints/step-00000012/model.safetensors")) / 2;
  const int killed = run("killed", at_size("kill", limit));
  ASSERT_TRUE(WIFSIGNALED(killed) && WTERMSIG(killed) == SIGKILL) << log("killed");
  const int full = run("full", at_size("throw", limit));
  EXPECT_TRUE(WIFEXITED(full) && WEXITSTATUS(full) == 1);
  EXPECT_NE(log("full").find("Io: rank 0 of 2: checkpoint of step 2 could not be saved"), std::string::npos)
      << log("full");
  for (const char* output : {"killed", "full"}) {
    EXPECT_FALSE(newest_checkpoint(dir.file(output)).has_value()) << output;
    ASSERT_TRUE(finished(run(output))) << log(output);
    EXPECT_EQ(numbers(output), numbers("whole")) << output;
    EXPECT_EQ(weights(output), weights("whole")) << output;
  }
}

TEST_F(TrainProcess, KilledAtRandomMomentsAgainAndAgain) {
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_TRUE(finished(run("whole"))) << log("whole");
  const auto whole = std::chrono::steady_clock::now() - begin;
  // Moments spread over the length of a run, in an order that mixes early and late ones.
  int kills = 0;
  for (int attempt = 0; attempt < 40; ++attempt) {
    const pid_t pid = start("killed", {});
    std::this_thread::sleep_for(whole * ((attempt * 7) % 20 + 10) / 32);
    kill(pid, SIGKILL);
    const int status = wait_for(pid);
    if (WIFSIGNALED(status)) {
      ++kills;
      continue;
    }
    ASSERT_TRUE(finished(status)) << log("killed");
    break;
  }
  ASSERT_TRUE(finished(run("killed"))) << log("killed");
  EXPECT_GT(kills, 0);
  EXPECT_EQ(numbers("killed"), numbers("whole")) << kills << " kills";
  EXPECT_EQ(weights("killed"), weights("whole"));
}

TEST_F(TrainProcess, FullDiskIsAClearErrorAndKeepsTheLastCheckpoint) {
  ASSERT_TRUE(finished(run("whole"))) << log("whole");
  fs::create_directories(dir.file("full/checkpoints"));
  fs::copy(dir.file("whole/checkpoints/step-00000010"), dir.file("full/checkpoints/step-00000010"));
  fs::copy(dir.file("whole/config.toml"), dir.file("full/config.toml"));
  fs::copy(dir.file("whole/metrics.jsonl"), dir.file("full/metrics.jsonl"));
  const uintmax_t limit = fs::file_size(dir.file("whole/checkpoints/step-00000012/model.safetensors")) / 2;
  const int status = run("full", at_size("throw", limit));
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 1);
  for (const char* part : {"Io: checkpoint of step 12 could not be saved", "model.safetensors", "File too large",
                           "Earlier checkpoints", "--resume"}) {
    EXPECT_NE(log("full").find(part), std::string::npos) << part << " is not in:\n" << log("full");
  }
  EXPECT_EQ(newest_checkpoint(dir.file("full")), dir.file("full/checkpoints/step-00000010"));
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.file("full/checkpoints")), fs::directory_iterator()), 1);
  ASSERT_TRUE(finished(run("full"))) << log("full");
  EXPECT_EQ(numbers("full"), numbers("whole"));
}

}  // namespace
}  // namespace attnmux
