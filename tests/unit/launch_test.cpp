#include "attnmux/launch.h"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "expect_error.h"

namespace attnmux {
namespace {

using Set = std::map<std::string, std::string>;

std::optional<LaunchedRank> launched(const Set& set) {
  return launched_rank([&](const std::string& name) -> std::optional<std::string> {
    const auto found = set.find(name);
    if (found == set.end() || found->second.empty()) return std::nullopt;
    return found->second;
  });
}

// Variables of several launchers at once.
Set operator+(Set a, const Set& b) {
  a.insert(b.begin(), b.end());
  return a;
}

const Set kByHand{{"RANK", "2"}, {"WORLD_SIZE", "4"}};
const Set kTorchrun =
    kByHand +
    Set{{"LOCAL_RANK", "1"}, {"MASTER_ADDR", "node0"}, {"MASTER_PORT", "29500"}, {"TORCHELASTIC_RUN_ID", "none"}};
const Set kMpirun{{"OMPI_COMM_WORLD_RANK", "2"}, {"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_LOCAL_RANK", "0"}};
const Set kBatch{{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}, {"SLURM_LOCALID", "0"}};
const Set kSrun{{"SLURM_PROCID", "2"}, {"SLURM_NTASKS", "8"}, {"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_STEP_ID", "0"}};

TEST(Launch, NoLauncher) {
  EXPECT_FALSE(launched({}).has_value());
  EXPECT_FALSE(launched({{"MASTER_ADDR", "node0"}}).has_value());
  EXPECT_FALSE(launched({{"RANK", ""}, {"WORLD_SIZE", ""}}).has_value());
  EXPECT_FALSE(launched(kBatch).has_value()) << "a batch script is no step of srun";
}

TEST(Launch, EachLauncher) {
  const LaunchedRank torchrun = launched(kTorchrun).value();
  EXPECT_EQ(torchrun.launcher, "torchrun");
  EXPECT_EQ(torchrun.rank, 2);
  EXPECT_EQ(torchrun.size, 4);
  EXPECT_EQ(torchrun.local_rank, 1);
  EXPECT_EQ(torchrun.master_addr, "node0");
  EXPECT_EQ(torchrun.master_port, 29500);
  EXPECT_EQ(torchrun.described, "RANK=2, WORLD_SIZE=4");

  const LaunchedRank mpirun = launched(kMpirun).value();
  EXPECT_EQ(mpirun.launcher, "mpirun");
  EXPECT_EQ(mpirun.rank, 2);
  EXPECT_EQ(mpirun.size, 4);
  EXPECT_EQ(mpirun.local_rank, 0);
  EXPECT_EQ(mpirun.master_port, 0);

  const LaunchedRank srun = launched(kSrun).value();
  EXPECT_EQ(srun.launcher, "srun");
  EXPECT_EQ(srun.rank, 2);
  EXPECT_EQ(srun.size, 4) << "the step's tasks, not the job's";
  EXPECT_EQ(srun.local_rank, -1);

  EXPECT_EQ(launched(kByHand).value().launcher, "torchrun");
}

TEST(Launch, TheInnermostLauncherCounts) {
  const Set one_task{{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "1"}};
  EXPECT_EQ(launched(kTorchrun + one_task).value().described, "RANK=2, WORLD_SIZE=4");
  EXPECT_EQ(launched(kTorchrun + Set{{"SLURM_STEP_ID", "0"}, {"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "1"}})->launcher,
            "torchrun");
  EXPECT_EQ(launched(kMpirun + kBatch).value().launcher, "mpirun");
  EXPECT_EQ(launched(kMpirun + Set{{"SLURM_STEP_ID", "0"}, {"SLURM_PROCID", "1"}, {"SLURM_NTASKS", "2"}})->rank, 2);
}

TEST(Launch, CopiesByHandMustAgree) {
  EXPECT_EQ(launched(kByHand + kMpirun).value().launcher, "mpirun");
  EXPECT_EQ(launched(kByHand + kSrun).value().launcher, "srun");
  EXPECT_EQ(launched(kByHand + kSrun + Set{{"MASTER_ADDR", "node0"}}).value().master_addr, "node0");
  const Set zero{{"RANK", "0"}, {"WORLD_SIZE", "4"}};  // exported once in a batch script, inherited by every task
  expect_error(ErrorCode::kUsage, {"RANK=0, WORLD_SIZE=4", "SLURM_PROCID=2, SLURM_STEP_NUM_TASKS=4 (srun)", "unset"},
               [&] { launched(zero + kSrun); });
  expect_error(ErrorCode::kUsage, {"RANK=2, WORLD_SIZE=8", "OMPI_COMM_WORLD_RANK=2, OMPI_COMM_WORLD_SIZE=4 (mpirun)"},
               [&] {
                 launched(Set{{"RANK", "2"}, {"WORLD_SIZE", "8"}} + kMpirun);
               });
}

TEST(Launch, BadValues) {
  const auto refuses = [](const std::vector<std::string>& text, const Set& set) {
    expect_error(ErrorCode::kUsage, text, [&] { launched(set); });
  };
  refuses({"RANK=1 is set and WORLD_SIZE is not"}, {{"RANK", "1"}});
  refuses({"WORLD_SIZE=4 is set and RANK is not"}, {{"WORLD_SIZE", "4"}});
  refuses({"RANK=4", "from 0 to 3"}, {{"RANK", "4"}, {"WORLD_SIZE", "4"}});
  refuses({"RANK=-1"}, {{"RANK", "-1"}, {"WORLD_SIZE", "4"}});
  refuses({"RANK=1x"}, {{"RANK", "1x"}, {"WORLD_SIZE", "4"}});
  refuses({"WORLD_SIZE=0", "from 1"}, {{"RANK", "0"}, {"WORLD_SIZE", "0"}});
  refuses({"WORLD_SIZE=99999999999"}, {{"RANK", "0"}, {"WORLD_SIZE", "99999999999"}});
  refuses({"MASTER_PORT=70000", "65535"}, kByHand + Set{{"MASTER_PORT", "70000"}});
}

// A transport that has connected already.
class Connected final : public CpGroupFactory {
 public:
  explicit Connected(CpGroup& group) : group_(group) {}
  std::string id() const override { return "connected"; }
  std::string description() const override { return "a group at hand"; }
  std::shared_ptr<CpGroup> connect(const CpGroupOptions&) const override {
    return {&group_, [](CpGroup*) {}};
  }

 private:
  CpGroup& group_;
};

TEST(LaunchedRank, AnErrorNamesItsRankAndReachesTheOthers) {
  std::vector<std::string> errors(3);
  EXPECT_THROW(run_threads_group(3, {},
                                 [&](CpGroup& group) {
                                   try {
                                     run_launched_rank(Connected(group), {}, [](CpGroup& world) {
                                       if (world.rank() == 1) TORCH_CHECK(false, "no such operator");
                                       world.barrier();
                                     });
                                   } catch (const Error& error) {
                                     errors[group.rank()] = error.what();
                                   }
                                 }),
               Error);
  EXPECT_EQ(errors[1], "rank 1 of 3: LibTorch: no such operator");
  for (const int rank : {0, 2}) {
    const std::string expected = "rank 1 of 3 gave up before its first call: LibTorch: no such operator";
    EXPECT_TRUE(errors[rank].starts_with("rank " + std::to_string(rank) + " of 3: barrier")) << errors[rank];
    EXPECT_NE(errors[rank].find(expected), std::string::npos) << errors[rank];
  }
}

TEST(LaunchedRank, OneRankAloneThrowsItsErrorAsItIs) {
  expect_error(ErrorCode::kIo, {"the disk is full"}, [] {
    run_launched_rank(Connected(*single_rank_group()), {},
                      [](CpGroup&) { throw Error(ErrorCode::kIo, "the disk is full"); });
  });
}

TEST(Launch, ReadsTheEnvironment) {
  ::setenv("ATTNMUX_LAUNCH_TEST", "x", 1);
  EXPECT_EQ(environment_variable("ATTNMUX_LAUNCH_TEST"), "x");
  ::setenv("ATTNMUX_LAUNCH_TEST", "", 1);
  EXPECT_FALSE(environment_variable("ATTNMUX_LAUNCH_TEST").has_value());
  ::unsetenv("ATTNMUX_LAUNCH_TEST");
}

}  // namespace
}  // namespace attnmux
