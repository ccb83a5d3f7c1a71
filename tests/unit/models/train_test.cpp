// The training loop: against torch, across interruptions, and with everything that can go wrong.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "models/io/atomic_file.h"
#include "models/train/train_step.h"
#include "models/train/trainer.h"
#include "tests/common/compare.h"
#include "tests/unit/expect_error.h"
#include "tiny_run.h"
#include "train_golden.h"

namespace attnmux {
namespace {

namespace fs = std::filesystem;
using testing::close;
using ::testing::HasSubstr;

TEST(LrSchedule, WarmsUpThenFollowsHalfACosine) {
  const LrSchedule schedule{.peak = 2.0, .warmup_steps = 4, .steps = 12};
  EXPECT_DOUBLE_EQ(learning_rate(schedule, 1), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(schedule, 4), 2.0);
  EXPECT_DOUBLE_EQ(learning_rate(schedule, 5), 2.0);
  EXPECT_DOUBLE_EQ(learning_rate(schedule, 9), 1.0);
  EXPECT_GT(learning_rate(schedule, 12), 0.0);
  for (int64_t step = 6; step <= 12; ++step) {
    EXPECT_LT(learning_rate(schedule, step), learning_rate(schedule, step - 1));
  }
  EXPECT_DOUBLE_EQ(learning_rate({.peak = 1.0, .warmup_steps = 0, .steps = 1}, 1), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate({.peak = 1.0, .warmup_steps = 3, .steps = 3}, 3), 1.0);
}

TEST(AdamW, FollowsTheFormula) {
  ParameterStore store;
  store.add("matrix", at::tensor({1.0f, -2.0f}).view({1, 2}).requires_grad_(true));
  store.add("norm", at::tensor({0.5f}).requires_grad_(true));
  AdamW optimizer(store, {.weight_decay = 0.1});
  double m = 0, v = 0, matrix = 1.0, m_norm = 0, v_norm = 0, norm = 0.5;
  for (int step = 1; step <= 3; ++step) {
    store.at("matrix").mutable_grad() = at::full({1, 2}, 3.0 * step);
    store.at("norm").mutable_grad() = at::full({1}, -1.0);
    EXPECT_NEAR(optimizer.gradient_norm(), std::sqrt(2 * 9.0 * step * step + 1), 1e-5);
    optimizer.step(/*lr=*/0.01, /*gradient_scale=*/0.5);
    const auto update = [&](double& p, double g, double decay, double& avg, double& sq) {
      p *= 1 - 0.01 * decay;
      avg = 0.9 * avg + 0.1 * g;
      sq = 0.999 * sq + 0.001 * g * g;
      p -= 0.01 * (avg / (1 - std::pow(0.9, step))) / (std::sqrt(sq / (1 - std::pow(0.999, step))) + 1e-8);
    };
    update(matrix, 1.5 * step, 0.1, m, v);
    update(norm, -0.5, 0.0, m_norm, v_norm);
    EXPECT_NEAR(store.at("matrix")[0][0].item<float>(), matrix, 1e-6) << "step " << step;
    EXPECT_NEAR(store.at("norm")[0].item<float>(), norm, 1e-6) << "step " << step;
  }
  optimizer.clear_gradients();
  expect_error(ErrorCode::kInternal, {"parameter matrix", "no gradient"}, [&] { optimizer.gradient_norm(); });
}

TEST(AdamW, ClipsAsTorchDoes) {
  EXPECT_DOUBLE_EQ(clip_factor(0.5, 1.0), 1.0);
  EXPECT_NEAR(clip_factor(4.0, 1.0), 0.25, 1e-6);
  EXPECT_DOUBLE_EQ(clip_factor(4.0, 0.0), 1.0);
}

TEST(AdamW, Bf16ParametersKeepFp32Masters) {
  ParameterStore store;
  store.add("matrix", at::full({1, 1}, 256.0, at::kBFloat16).requires_grad_(true));
  AdamW optimizer(store, {});
  // Each update of 0.25 is lost to bf16 (whose step is 2 at 256), eight of them together are not.
  for (int step = 0; step < 8; ++step) {
    store.at("matrix").mutable_grad() = at::ones({1, 1}, at::kBFloat16);
    optimizer.step(0.25, 1.0);
  }
  EXPECT_EQ(store.at("matrix").item<float>(), 254.0f);
  EXPECT_EQ(optimizer.state().size(), 3u);
}

TEST(Train, FirstTwentyStepsEqualTorch) {
  const std::string dir = ATTNMUX_SOURCE_DIR "/tests/golden/models/gqa2_untied";
  testing::expect_steps_equal_torch(dir, dir + "/train.safetensors", "magi", /*steps=*/20, /*tolerance=*/1e-4);
}

class Run : public testing::TinyRun {
 protected:
  struct Stop {};
  // Runs until the metrics of `step` are written, then leaves as if killed.
  void stop_after(int64_t step, const std::vector<std::string>& sets) {
    const TrainHooks hooks{.on_step = [step](const StepMetrics& m) {
      if (m.step == step) throw Stop{};
    }};
    EXPECT_THROW(train(plan(sets, Resume::kYes), hooks), Stop);
  }
};

TEST_F(Run, LearnsAndLeavesTheWholeRunFolder) {
  const TrainResult result = run({"train.steps=30", "train.save_every=0"});
  ASSERT_EQ(result.metrics.size(), 31u);
  EXPECT_LT(*result.heldout_after, *result.heldout_before - 0.3);
  const StepMetrics& last = result.metrics.back();
  EXPECT_EQ(last.step, 30);
  EXPECT_EQ(last.tokens, 48);
  EXPECT_EQ(last.backends, (std::map<std::string, int64_t>{{"magi", 2}}));
  EXPECT_GT(last.peak_bytes, 1 << 20);
  EXPECT_EQ(last.balance, 1.0);
  for (const char* name :
       {"config.toml", "metrics.jsonl", "report.html", "checkpoints/step-00000030/config.json",
        "checkpoints/step-00000030/model.safetensors", "checkpoints/step-00000030/tokenizer.json",
        "checkpoints/step-00000030/tokenizer_config.json", "checkpoints/step-00000030/trainer_state.safetensors"}) {
    EXPECT_TRUE(fs::exists(dir.file("run/") + name)) << name;
  }
  const std::string report = read_whole_file(dir.file("run/report.html"));
  for (const char* part : {"<svg", "held-out loss", "magi", "model.layers.1.self_attn", "steps = 30"}) {
    EXPECT_THAT(report, HasSubstr(part));
  }
  EXPECT_EQ(report.find("http://"), report.find("http://www.w3.org/2000/svg")) << "the page must open offline";
  EXPECT_EQ(report.find("<script"), std::string::npos);
}

TEST_F(Run, TheReportOfSeveralRanksShowsWhoOwnsWhat) {
  run({"train.steps=1", "train.save_every=0", "train.warmup_steps=0", "parallel.cp=2", "parallel.chunk_size=8"});
  const std::string report = read_whole_file(dir.file("run/report.html"));
  for (const char* part :
       {"2 ranks share each sequence, chunks of 8 tokens", "rank 1", "Attended pairs of each rank"}) {
    EXPECT_THAT(report, HasSubstr(part));
  }
}

TEST_F(Run, DryPlanWritesNothing) {
  const size_t before = dir.num_files();
  const std::string text = describe(plan());
  EXPECT_EQ(dir.num_files(), before);
  for (const char* part : {"2 layers", "12 documents", "sequences of 48", "held out  1 documents", "steps     8",
                           "magi: 2 attention modules"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
}

TEST_F(Run, GoesOnBitForBitWhereverItStopped) {
  const std::vector<std::string> whole = numbers(run({"train.output=" + dir.file("whole")}).metrics);
  for (const int64_t stop : {0, 1, 2, 5, 8}) {
    const std::vector<std::string> sets = {"train.output=" + dir.file("cut" + std::to_string(stop))};
    stop_after(stop, sets);
    EXPECT_EQ(numbers(run(sets, Resume::kYes).metrics), whole) << "stopped after step " << stop;
  }
  EXPECT_EQ(read_whole_file(dir.file("cut5/checkpoints/step-00000008/model.safetensors")),
            read_whole_file(dir.file("whole/checkpoints/step-00000008/model.safetensors")));
}

TEST_F(Run, Bf16GoesOnBitForBitToo) {
  const std::vector<std::string> bf16 = {"train.dtype=bf16", "train.steps=4"};
  std::vector<std::string> whole = bf16, cut = bf16;
  whole.push_back("train.output=" + dir.file("whole"));
  cut.push_back("train.output=" + dir.file("cut"));
  const std::vector<std::string> expected = numbers(run(whole).metrics);
  stop_after(3, cut);
  EXPECT_EQ(numbers(run(cut, Resume::kYes).metrics), expected);
  EXPECT_THAT(read_whole_file(dir.file("cut/checkpoints/step-00000004/config.json")), HasSubstr("bfloat16"));
}

TEST_F(Run, ActivationCheckpointingChangesNoNumber) {
  const auto plain = numbers(run({"train.output=" + dir.file("plain")}).metrics);
  const auto recomputed =
      numbers(run({"train.output=" + dir.file("recomputed"), "train.activation_checkpointing=true"}).metrics);
  EXPECT_EQ(plain, recomputed);
}

TEST_F(Run, CutMetricsLineAndPartialCheckpointAreDropped) {
  const std::vector<std::string> whole = numbers(run({"train.output=" + dir.file("whole")}).metrics);
  stop_after(5, {});
  std::ofstream(dir.file("run/metrics.jsonl"), std::ios::app) << "{\"step\": 6, \"lo";
  fs::create_directories(dir.file("run/checkpoints/.partial-step-00000006"));
  std::ofstream(dir.file("run/checkpoints/.partial-step-00000006/model.safetensors")) << "half";
  EXPECT_EQ(numbers(run({}, Resume::kYes).metrics), whole);
  for (const auto& entry : fs::directory_iterator(dir.file("run/checkpoints"))) {
    EXPECT_THAT(entry.path().filename().string(), ::testing::StartsWith("step-"));
  }
}

TEST_F(Run, KeepsTheNewestCheckpoints) {
  run();
  EXPECT_FALSE(fs::exists(dir.file("run/checkpoints/step-00000004")));
  EXPECT_TRUE(fs::exists(dir.file("run/checkpoints/step-00000006")));
  EXPECT_TRUE(fs::exists(dir.file("run/checkpoints/step-00000008")));
  run({"train.output=" + dir.file("all"), "train.keep_checkpoints=0"});
  EXPECT_TRUE(fs::exists(dir.file("all/checkpoints/step-00000002")));
}

TEST_F(Run, ACheckpointIsAModelToTrainFrom) {
  run();
  const TrainResult next = run(
      {"model.path=" + dir.file("run/checkpoints/step-00000008"), "train.steps=2", "train.output=" + dir.file("next")});
  const std::vector<StepMetrics> before = read_metrics(dir.file("run/metrics.jsonl"));
  EXPECT_EQ(*next.heldout_before, *before.back().heldout_loss);
}

TEST_F(Run, RefusesToMixRuns) {
  run({"train.steps=2"});
  expect_error(ErrorCode::kUsage, {"already holds a run", "--resume"}, [&] { run({"train.steps=2"}); });
  expect_error(ErrorCode::kUsage, {"another config", "train.lr: was 0.01, is 0.5"}, [&] {
    run({"train.steps=2", "train.lr=0.5"}, Resume::kYes);
  });
  // Finished: --resume does nothing more than to write the report again.
  EXPECT_EQ(run({"train.steps=2"}, Resume::kYes).metrics.size(), 3u);
}

TEST_F(Run, TextShorterThanASequenceWritesNothing) {
  const size_t before = dir.num_files();
  expect_error(ErrorCode::kInvalidArgument, {"shorter than one sequence", "seq_len = 5000"},
               [&] { run({"data.seq_len=5000"}); });
  EXPECT_EQ(dir.num_files(), before);
}

TEST_F(Run, BackendThatRefusesStopsBeforeWeightsLoad) {
  fs::remove(dir.file("model/model.safetensors"));
  expect_error(ErrorCode::kUnknownBackend, {"magik", "magi"}, [&] { plan({"model.attn_implementation=magik"}); });
}

TEST_F(Run, NonFiniteLossNamesStepModuleAndParameter) {
  const SafetensorsFile file = SafetensorsFile::open(dir.file("model/model.safetensors"));
  std::vector<NamedTensor> weights;
  for (const std::string& name : file.names()) {
    weights.push_back({name, file.tensor(name).clone()});
    if (name == "model.layers.1.mlp.up_proj.weight") {
      weights.back().tensor[3][4] = std::numeric_limits<float>::quiet_NaN();
    }
  }
  write_safetensors(dir.file("model/model.safetensors"), weights, {});
  expect_error(ErrorCode::kNonFinite,
               {"step 1: the loss is", "nan", "first module whose output is not finite is model.layers.1.mlp",
                "parameter model.layers.1.mlp.up_proj.weight is not finite"},
               [&] { run({"data.heldout=[]"}); });
  EXPECT_FALSE(newest_checkpoint(dir.file("run")).has_value());
}

TEST_F(Run, DivergingRunStopsAndKeepsTheLastCheckpoint) {
  try {
    run({"train.lr=1e30", "train.warmup_steps=0", "train.save_every=1", "data.heldout=[]"});
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kNonFinite) << error.what();
    EXPECT_THAT(error.what(), HasSubstr("step 2"));
    EXPECT_THAT(error.what(), HasSubstr("last checkpoint is kept"));
  }
  EXPECT_TRUE(newest_checkpoint(dir.file("run")).has_value());
}

TEST_F(Run, ForeignTrainerStateIsRefused) {
  run({"train.steps=2"});
  const std::string state = dir.file("run/checkpoints/step-00000002/trainer_state.safetensors");
  const SafetensorsFile file = SafetensorsFile::open(state);
  std::vector<NamedTensor> tensors;
  for (const std::string& name : file.names()) {
    if (name != "exp_avg.model.norm.weight") tensors.push_back({name, file.tensor(name)});
  }
  write_safetensors(state, tensors, file.metadata());
  expect_error(ErrorCode::kBadFile, {"trainer_state.safetensors", "missing: exp_avg.model.norm.weight"},
               [&] { run({"train.steps=2"}, Resume::kYes); });
}

}  // namespace
}  // namespace attnmux
