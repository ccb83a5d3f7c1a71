// Group "mpi" under mpirun: each test starts processes (mpi_ranks) and reads what each rank said. Skipped where there
// is no mpirun.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "attnmux/plugin_loader.h"
#include "expect_error.h"
#include "faults.h"
#include "tests/common/mpirun.h"

namespace attnmux::testing {
namespace {

using ::testing::HasSubstr;

// What a rank said; empty: nothing.
std::string said(const Launch& launch, int32_t rank) {
  const std::string start = "rank " + std::to_string(rank) + ": ";
  const std::vector<std::string> lines = launch.lines_with(start);
  return lines.empty() ? "" : lines.front().substr(lines.front().find(start) + start.size());
}

class MpiGroup : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!mpirun_found()) GTEST_SKIP() << kNoMpirun;
  }

  static Launch run_ranks(int32_t ranks, const std::string& arguments) {
    return mpirun(ranks, ATTNMUX_BUILD_DIR "/tests/mpi_ranks " + arguments);
  }

  // The middle one of three ranks fails; the others say so.
  static void expect_named(const std::string& call, const std::string& fault, const std::vector<std::string>& parts,
                           const std::string& deadline = "") {
    const Launch launch = run_ranks(3, "fault " + call + " " + fault + " " + deadline);
    EXPECT_NE(launch.status, 0);
    for (const int32_t rank : {0, 2}) {
      for (const std::string& part : parts) EXPECT_THAT(said(launch, rank), HasSubstr(part)) << launch.output;
      EXPECT_THAT(said(launch, rank), HasSubstr("CommError: ")) << launch.output;
    }
  }
};

TEST_F(MpiGroup, DoesWhatEveryTransportDoes) {
  for (const int32_t ranks : {1, 2, 4}) {
    const Launch launch = run_ranks(ranks, "cases");
    EXPECT_EQ(launch.status, 0) << launch.output;
    for (int32_t rank = 0; rank < ranks; ++rank) EXPECT_EQ(said(launch, rank), "ok") << launch.output;
  }
}

TEST_F(MpiGroup, LongTensorsTravelInSeveralMessages) {
  const Launch launch = run_ranks(2, "big 70");
  EXPECT_EQ(launch.status, 0) << launch.output;
  EXPECT_EQ(said(launch, 1), "ok") << launch.output;
}

TEST_F(MpiGroup, BytesMoveWhileTheRanksCompute) { EXPECT_EQ(said(run_ranks(2, "overlap"), 0), "ok"); }

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
  const Launch launch = run_ranks(3, "chain 500");
  EXPECT_NE(launch.status, 0);
  for (const int32_t rank : {0, 1}) {
    EXPECT_THAT(said(launch, rank), HasSubstr("rank 2 of 3 did not")) << launch.output;
  }
}

TEST_F(MpiGroup, CallsThatDoNotMatchNameBothRanks) {
  const Launch launch = run_ranks(3, "mismatch");
  EXPECT_NE(launch.status, 0);
  for (const int32_t rank : {0, 1, 2}) {
    EXPECT_THAT(said(launch, rank), HasSubstr("rank 1 of 3 called barrier (call 1)")) << launch.output;
    EXPECT_THAT(said(launch, rank), HasSubstr("called exchange (call 1)")) << launch.output;
  }
}

// mpirun ends the others: the launch comes to its end, with a status that says so.
TEST_F(MpiGroup, ARankThatIsKilledEndsTheLaunch) {
  for (const char* fault : {"kill", "exit"}) {
    const Launch launch = run_ranks(3, std::string("fault exchange ") + fault);
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
