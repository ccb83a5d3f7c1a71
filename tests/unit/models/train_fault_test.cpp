// A rank that throws or stalls, at every point of a step: the run ends with one error that names it, the checkpoints
// are whole, and the run goes on from them as if nothing had been.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "stopped_run.h"
#include "tests/common/faulty_group.h"

namespace attnmux {
namespace {

constexpr int32_t kRanks = 4;
constexpr int32_t kFaulty = 2;

class Fault : public testing::StoppedRun {
 protected:
  Fault() : StoppedRun(/*dp=*/2, /*cp=*/2) {}

  // Goes on with a copy of the stopped run; one rank asks `point` at every point of its calls to the group.
  void goes_on_with(const std::string& output, const CpGroupOptions& options, const testing::FaultPoint& point) {
    copy(output);
    const TrainPlan planned = plan(sets(output), Resume::kYes);
    run_threads_group(kRanks, options, [&](CpGroup& group) {
      if (group.rank() != kFaulty) {
        train(planned, {}, group);
        return;
      }
      testing::FaultyGroup faulty(group, point);
      train(planned, {}, faulty);
    });
  }

  // What a failed save leaves behind it removes: whoever failed did so in order.
  void expect_intact(const std::string& output) {
    for (const auto& entry : std::filesystem::directory_iterator(dir.file(output + "/checkpoints"))) {
      EXPECT_THAT(entry.path().filename().string(), ::testing::StartsWith("step-"));
    }
    StoppedRun::expect_intact(output);
  }
};

TEST_F(Fault, ARankThatThrowsAtAnyPointOfAStep) {
  std::vector<std::string> points;
  goes_on_with("points", {}, [&](const std::string& point) { points.push_back(point); });
  // Two points of agreement on the run, then two steps that are alike, then the end.
  const size_t last = 2 + (points.size() - 2) / 2;
  ASSERT_GE(last, 20u);
  for (size_t broken = 0; broken < last; ++broken) {
    SCOPED_TRACE("point " + std::to_string(broken) + ": " + points[broken]);
    const std::string output = "broken" + std::to_string(broken);
    size_t at = 0;
    expect_error(ErrorCode::kDeviceError, {"rank 2 of 4", "out of luck"}, [&] {
      goes_on_with(output, {.deadline = std::chrono::seconds(60)}, [&](const std::string&) {
        if (at++ == broken) throw Error(ErrorCode::kDeviceError, "out of luck");
      });
    });
    expect_intact(output);
  }
}

TEST_F(Fault, ARankThatStallsIsNamedByTheOthers) {
  constexpr auto kDeadline = std::chrono::seconds(3);
  for (const char* where : {"exchange", "wait for all_reduce"}) {
    bool stalled = false;
    expect_error(ErrorCode::kCommError, {"rank 2 of 4"}, [&] {
      goes_on_with(std::string("stalled in ") + where, {.deadline = kDeadline}, [&](const std::string& point) {
        if (point != where || stalled) return;
        stalled = true;
        std::this_thread::sleep_for(kDeadline * 4 / 3);
      });
    });
    expect_intact(std::string("stalled in ") + where);
  }
}

TEST_F(Fault, ARankThatFailsBehindACheckpointKeepsIt) {
  const TrainHooks hooks{.on_checkpoint = [](const std::string&) { throw Error(ErrorCode::kIo, "disk is gone"); }};
  copy("saved");
  expect_error(ErrorCode::kIo, {"rank 0 of 4", "disk is gone"},
               [&] { train(plan(sets("saved"), Resume::kYes), hooks); });
  EXPECT_EQ(newest_checkpoint(dir.file("saved")), checkpoint("saved", 4));
  EXPECT_EQ(numbers(goes_on("saved").metrics), whole);
}

}  // namespace
}  // namespace attnmux
