// A training run on a tiny model and a dozen short documents, as a test fixture.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "models/train/trainer.h"
#include "tests/common/cpu_backends.h"
#include "tests/common/temp_dir.h"

namespace attnmux::testing {

class TinyRun : public ::testing::Test {
 protected:
  TinyRun();

  TrainPlan plan(const std::vector<std::string>& sets = {}, Resume resume = Resume::kNo) {
    return plan_training(load_train_config(dir.file("f.toml"), sets), cpu_backends(), resume);
  }
  TrainResult run(const std::vector<std::string>& sets = {}, Resume resume = Resume::kNo) {
    return train(plan(sets, resume), {});
  }

  // Everything that must not depend on interruptions.
  static std::vector<std::string> numbers(std::vector<StepMetrics> metrics) {
    std::vector<std::string> lines;
    for (StepMetrics& m : metrics) {
      m.tokens_per_s = 0;
      m.peak_bytes = 0;
      lines.push_back(to_json(m));
    }
    return lines;
  }

  TempDir dir;
};

}  // namespace attnmux::testing
