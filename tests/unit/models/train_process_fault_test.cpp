// Ranks that are processes under mpirun, and one that throws, exits, is killed or stalls, at every point of a step: all
// of them end with an error that names it, no checkpoint is half written, and the run goes on as if nothing had been.
// Runs go on as threads: that the numbers are the same is part of the test.
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <future>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "stopped_run.h"
#include "tests/common/mpirun.h"

namespace attnmux {
namespace {

using ::testing::ContainsRegex;
using testing::Launch;

struct Point {
  std::string name;
  std::string call;
  int64_t number;
};

// Two layers: exchanges 1 and 2 of a step bring keys for forward, 3 to 6 keys for backward and gradients home.
const std::vector<Point> kPoints = {{"before they meet", "connect", 1},
                                    {"before an exchange", "exchange", 1},
                                    {"mid-exchange", "wait for exchange", 2},
                                    {"in backward", "exchange", 4},
                                    {"in the sum of gradients", "wait for all_reduce", 3}};

// Launches run side by side: most of their time is waiting.
class ProcessFault : public testing::StoppedRun {
 protected:
  ProcessFault() : StoppedRun(/*dp=*/1, /*cp=*/2) { at::set_num_threads(1); }

  static std::string fault(const std::string& kind, const Point& point) {
    return " --fault " + kind + " 1 '" + point.call + "' " + std::to_string(point.number);
  }

  // Rank 0 writes them; the fault comes in the middle of the optimizer's state.
  std::string fault_in_checkpoint(const std::string& kind) {
    const auto bytes = std::filesystem::file_size(checkpoint("base", 2) + "/trainer_state.safetensors");
    return " --fault " + kind + " 0 checkpoint " + std::to_string(bytes / 2);
  }

  // Goes on with a copy of the stopped run, each rank a thread of one process.
  void start_threads(const std::string& output, const std::string& arguments) {
    copy(output);
    launches_[output] = std::async(std::launch::async, [command = command(output, arguments)] {
      return testing::run_command("OMP_NUM_THREADS=1 timeout 120 " + command);
    });
  }
  // Each rank a process; `options`: of mpirun.
  void start_processes(const std::string& output, const std::string& arguments, const std::string& options = "") {
    copy(output);
    launches_[output] =
        std::async(std::launch::async, [options, command = command(output, arguments + " parallel.group=mpi")] {
          return testing::mpirun(2, command, options + "-x ATTNMUX_PLUGIN_FILES=" ATTNMUX_MPI_PLUGIN " ");
        });
  }

  // How it ended (no status: a matter of mpirun's), and that it goes on.
  Launch expect(const std::string& output, std::optional<int> status, const std::string& said) {
    SCOPED_TRACE(output);
    const Launch launch = launches_.at(output).get();
    if (status) {
      EXPECT_EQ(launch.status, *status) << launch.output;
    }
    EXPECT_THAT(launch.output, ContainsRegex(said));
    expect_intact(output);
    return launch;
  }

 private:
  std::string command(const std::string& output, const std::string& arguments) {
    std::string text = std::string(ATTNMUX_BUILD_DIR) + "/tests/train_program " + dir.file("f.toml") + " --resume";
    for (const std::string& set : sets(output)) text += " '" + set + "'";
    return text + arguments;
  }

  std::map<std::string, std::future<Launch>> launches_;  // by output
};

class Mpirun : public ProcessFault {
 protected:
  void SetUp() override {
    if (!testing::mpirun_found()) GTEST_SKIP() << testing::kNoMpirun;
    ProcessFault::SetUp();
  }
};

TEST_F(Mpirun, ARankThatThrowsTellsTheOthersWhy) {
  for (const Point& point : kPoints) start_processes(point.name, fault("throw", point));
  start_processes("checkpoint", fault_in_checkpoint("throw"));
  for (const Point& point : kPoints) {
    if (point.call == "connect") {  // nobody can be told yet; mpirun ends the others
      expect(point.name, 1, "DeviceError: out of luck");
      continue;
    }
    const Launch launch =
        expect(point.name, 1, "CommError: rank 0 of 2: .*: rank 1 of 2 gave up after .*: out of luck");
    EXPECT_EQ(launch.lines_with("DeviceError: rank 1 of 2: out of luck").size(), 1u) << launch.output;
    EXPECT_EQ(launch.lines_with("out of luck").size(), 2u) << "each rank says it once: " << launch.output;
  }
  const Launch launch =
      expect("checkpoint", 1, "CommError: rank 1 of 2: barrier .*: rank 0 of 2 gave up after .*: checkpoint of step 4");
  EXPECT_EQ(launch.lines_with("Io: rank 0 of 2: checkpoint of step 4 could not be saved").size(), 1u) << launch.output;
}

// mpirun ends the other ranks and says why.
TEST_F(Mpirun, ARankThatIsGoneEndsTheLaunch) {
  for (const std::string kind : {"kill", "exit"}) {
    for (const Point& point : kPoints) start_processes(kind + " " + point.name, fault(kind, point));
    start_processes(kind + " in checkpoint", fault_in_checkpoint(kind));
  }
  for (const Point& point : kPoints) {
    expect("kill " + point.name, 128 + 9, "process rank 1 .* signal 9");
    expect("exit " + point.name, 7, "\\[\\[[0-9]+,1\\],1\\]");  // mpirun's name of rank 1
  }
  expect("kill in checkpoint", 128 + 9, "process rank 0 .* signal 9");
  expect("exit in checkpoint", 7, "\\[\\[[0-9]+,1\\],0\\]");
}

TEST_F(Mpirun, ARankThatStallsIsNamedByTheOthers) {
  const std::string deadline = " parallel.deadline_s=4";
  for (const Point& point : kPoints) start_processes(point.name, fault("stall", point) + deadline);
  start_processes("checkpoint", fault_in_checkpoint("stall") + deadline);
  // mpirun told not to end the others, as a launcher may that does not see their host.
  for (const std::string kind : {"kill", "exit"}) {
    start_processes(kind + " unseen", fault(kind, kPoints[2]) + deadline, "--enable-recovery ");
  }
  for (const Point& point : kPoints) {
    const bool connecting = point.call == "connect";
    expect(point.name, 1,
           connecting ? "CommError: .*MPI_Init has not returned within 14000 ms on rank 0 of 2"
                      : "CommError: rank 0 of 2: .*: rank 1 of 2 did not .* within 4000 ms");
  }
  expect("checkpoint", 1, "CommError: rank 1 of 2: barrier .*: rank 0 of 2 did not .* within 4000 ms");
  for (const char* output : {"kill unseen", "exit unseen"}) {
    expect(output, std::nullopt, "CommError: rank 0 of 2: .*: rank 1 of 2 did not .* its process does not answer");
  }
}

TEST_F(ProcessFault, AThreadThatStallsEndsTheProcess) {
  const std::string deadline = " parallel.deadline_s=2";
  for (const Point& point : kPoints) {
    if (point.call != "connect") start_threads(point.name, fault("stall", point) + deadline);
  }
  start_threads("checkpoint", fault_in_checkpoint("stall") + deadline);
  const std::string end = " of 2 did not call .* within 2000 ms.* the process ends";
  for (const Point& point : kPoints) {
    if (point.call != "connect") expect(point.name, 1, "error: threads group: rank 1" + end);
  }
  expect("checkpoint", 1, "error: threads group: rank 0" + end);
}

}  // namespace
}  // namespace attnmux
