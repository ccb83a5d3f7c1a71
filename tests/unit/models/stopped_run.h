// A run on several ranks that stopped behind its checkpoint of step 2 of 4: what tests go on with, break on the way,
// and compare with the run that nothing broke.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "attnmux/error.h"
#include "tests/unit/expect_error.h"
#include "tiny_run.h"

namespace attnmux::testing {

class StoppedRun : public TinyRun {
 protected:
  StoppedRun(int64_t dp, int64_t cp) : dp_(dp), cp_(cp) {}

  void SetUp() override {
    const TrainHooks hooks{.on_checkpoint = [](const std::string&) { throw Error(ErrorCode::kIo, "stopped"); }};
    expect_error(ErrorCode::kIo, {"rank 0 of " + std::to_string(ranks()), "stopped"},
                 [&] { train(plan(sets("base")), hooks); });
    ASSERT_EQ(newest_checkpoint(dir.file("base")), checkpoint("base", 2));
    whole = numbers(goes_on("whole").metrics);
    ASSERT_EQ(whole.size(), 4u);
  }

  int64_t ranks() const { return dp_ * cp_; }

  std::vector<std::string> sets(const std::string& output) const {
    return {"parallel.dp=" + std::to_string(dp_),
            "parallel.cp=" + std::to_string(cp_),
            "parallel.chunk_size=8",
            "train.steps=4",
            "data.heldout=[]",
            "train.save_every=2",
            "train.output=" + dir.file(output)};
  }

  std::string checkpoint(const std::string& output, int step) const {
    return dir.file(output + "/checkpoints/step-0000000" + std::to_string(step));
  }

  // A copy of the stopped run.
  void copy(const std::string& output) {
    namespace fs = std::filesystem;
    if (!fs::exists(dir.file(output))) fs::copy(dir.file("base"), dir.file(output), fs::copy_options::recursive);
  }
  TrainResult goes_on(const std::string& output) {
    copy(output);
    return run(sets(output), Resume::kYes);
  }

  // Step 2 is still the newest that looks complete, and the run goes on from it as if nothing had been.
  void expect_intact(const std::string& output) {
    EXPECT_EQ(newest_checkpoint(dir.file(output)), checkpoint(output, 2)) << output;
    EXPECT_EQ(numbers(goes_on(output).metrics), whole) << output;
  }

  std::vector<std::string> whole;  // metrics of the run that nothing broke

 private:
  int64_t dp_, cp_;
};

}  // namespace attnmux::testing
