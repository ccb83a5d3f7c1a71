// Group "mpi" under mpirun: each test starts processes (mpi_ranks) and reads what each rank said. Skipped where there
// is no mpirun.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "attnmux/plugin_loader.h"
#include "expect_error.h"
#include "faults.h"

namespace attnmux::testing {
namespace {

using ::testing::HasSubstr;

struct Launch {
  int status = -1;
  std::string output;
  // What each rank said; empty: nothing.
  std::string of_rank(int32_t rank) const {
    const std::string start = "rank " + std::to_string(rank) + ": ";
    std::istringstream lines(output);
    for (std::string line; std::getline(lines, line);) {
      if (const size_t at = line.find(start); at != std::string::npos) return line.substr(at + start.size());
    }
    return "";
  }
};

Launch run(const std::string& command) {
  Launch launch;
  FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  char text[4096];
  for (size_t count; (count = std::fread(text, 1, sizeof text, pipe)) > 0;) launch.output.append(text, count);
  const int status = ::pclose(pipe);
  launch.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return launch;
}

class MpiGroup : public ::testing::Test {
 protected:
  void SetUp() override {
    if (std::string(ATTNMUX_MPIRUN).empty() || run(ATTNMUX_MPIRUN " --version").status != 0) {
      GTEST_SKIP() << "no mpirun; tools/setup installs it";
    }
  }

  // More ranks than cores, all on this machine, each with one thread.
  static Launch mpirun(int32_t ranks, const std::string& arguments) {
    return run("timeout 120 " ATTNMUX_MPIRUN
               " --oversubscribe --allow-run-as-root --bind-to none -x OMP_NUM_THREADS=1 -n " +
               std::to_string(ranks) + " " ATTNMUX_BUILD_DIR "/tests/mpi_ranks " + arguments);
  }

  // The middle one of three ranks fails; the others say so.
  static void expect_named(const std::string& call, const std::string& fault, const std::vector<std::string>& parts,
                           const std::string& deadline = "") {
    const Launch launch = mpirun(3, "fault " + call + " " + fault + " " + deadline);
    EXPECT_NE(launch.status, 0);
    for (const int32_t rank : {0, 2}) {
      for (const std::string& part : parts) EXPECT_THAT(launch.of_rank(rank), HasSubstr(part)) << launch.output;
      EXPECT_THAT(launch.of_rank(rank), HasSubstr("CommError: ")) << launch.output;
    }
  }
};

TEST_F(MpiGroup, DoesWhatEveryTransportDoes) {
  for (const int32_t ranks : {1, 2, 4}) {
    const Launch launch = mpirun(ranks, "cases");
    EXPECT_EQ(launch.status, 0) << launch.output;
    for (int32_t rank = 0; rank < ranks; ++rank) EXPECT_EQ(launch.of_rank(rank), "ok") << launch.output;
  }
}

TEST_F(MpiGroup, LongTensorsTravelInSeveralMessages) {
  const Launch launch = mpirun(2, "big 70");
  EXPECT_EQ(launch.status, 0) << launch.output;
  EXPECT_EQ(launch.of_rank(1), "ok") << launch.output;
}

TEST_F(MpiGroup, BytesMoveWhileTheRanksCompute) { EXPECT_EQ(mpirun(2, "overlap").of_rank(0), "ok"); }

// --- failures ---

TEST_F(MpiGroup, ARankThatThrowsIsNamed) {
  for (const char* call : {"exchange", "all_reduce"}) {
    expect_named(call, "throw", {"rank 1 of 3 ended with an error after barrier (call 1)", "(call 2)"});
  }
}

TEST_F(MpiGroup, ARankThatReturnsIsNamed) {
  expect_named("all_gather", "return",
               {"rank 1 of 3 ended after barrier (call 1), without calling all_gather", "(call 2)"});
}

TEST_F(MpiGroup, AReasonReachesAllRanks) {
  expect_named("subgroup", "abort",
               {"rank 1 of 3 gave up after barrier (call 1): the disk is full", "subgroup (call 2)"});
}

TEST_F(MpiGroup, ARankThatStallsIsNamedAndTheLaunchEnds) {
  expect_named("exchange", "stall", {"rank 1 of 3 did not call exchange (call 2) within 400 ms", "barrier (call 1)"},
               "400");
}

TEST_F(MpiGroup, ARankThatIsStoppedIsNamed) {
  expect_named("all_reduce", "stop", {"rank 1 of 3 did not call all_reduce", "its process does not answer"}, "400");
}

TEST_F(MpiGroup, TheStalledRankIsNamedNotTheOneThatWaitsForIt) {
  const Launch launch = mpirun(3, "chain 500");
  EXPECT_NE(launch.status, 0);
  for (const int32_t rank : {0, 1}) {
    EXPECT_THAT(launch.of_rank(rank), HasSubstr("rank 2 of 3 did not")) << launch.output;
  }
}

TEST_F(MpiGroup, CallsThatDoNotMatchNameBothRanks) {
  const Launch launch = mpirun(3, "mismatch");
  EXPECT_NE(launch.status, 0);
  for (const int32_t rank : {0, 1, 2}) {
    EXPECT_THAT(launch.of_rank(rank), HasSubstr("rank 1 of 3 called barrier (call 1)")) << launch.output;
    EXPECT_THAT(launch.of_rank(rank), HasSubstr("called exchange (call 1)")) << launch.output;
  }
}

// mpirun ends the others: the launch comes to its end, with a status that says so.
TEST_F(MpiGroup, ARankThatIsKilledEndsTheLaunch) {
  for (const char* fault : {"kill", "exit"}) {
    const Launch launch = mpirun(3, std::string("fault exchange ") + fault);
    EXPECT_NE(launch.status, 0) << launch.output;
    EXPECT_NE(launch.status, 124) << "ended by the time limit: " << launch.output;
  }
}

TEST(MpiGroupWithoutMpirun, SaysHowToStart) {
  PluginRegistry registry;
  load_plugins({.files = {ATTNMUX_MPI_PLUGIN}, .relative_to = ""}, registry);
  expect_error(ErrorCode::kUsage, {"group \"mpi\"", "mpirun -n N attnmux train", "threads"},
               [&] { registry.cp_group("mpi")->connect({}); });
  expect_error(ErrorCode::kInvalidArgument, {"deadline of 0 ms"},
               [&] { registry.cp_group("mpi")->connect({.deadline = std::chrono::milliseconds(0)}); });
}

}  // namespace
}  // namespace attnmux::testing
