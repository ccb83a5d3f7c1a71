// Training on several ranks: the numbers of one rank, however the ranks share the batch.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "attnmux/mask_builders.h"
#include "models/data/llm_batch.h"
#include "models/families/families.h"
#include "models/io/atomic_file.h"
#include "models/io/safetensors.h"
#include "models/train/device_mesh.h"
#include "models/train/gradient_sum.h"
#include "tests/common/faulty_group.h"
#include "tests/unit/expect_error.h"
#include "tiny_run.h"

namespace attnmux {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

struct Ranks {
  std::string name;
  int64_t dp, cp;
  std::vector<std::string> parallel;  // further keys of [parallel]
  std::string data;                   // a key that one rank is given, too
};

void PrintTo(const Ranks& ranks, std::ostream* out) { *out << ranks.name; }

std::vector<std::string> sets_of(const Ranks& ranks) {
  std::vector<std::string> sets{"parallel.dp=" + std::to_string(ranks.dp), "parallel.cp=" + std::to_string(ranks.cp)};
  for (const std::string& key : ranks.parallel) sets.push_back("parallel." + key);
  if (!ranks.data.empty()) sets.push_back("data." + ranks.data);
  return sets;
}

class RanksRun : public testing::TinyRun, public ::testing::WithParamInterface<Ranks> {};

TEST_P(RanksRun, LossesAreThoseOfOneRank) {
  const auto result = [&](const Ranks& ranks, const std::string& output) {
    std::vector<std::string> sets = sets_of(ranks);
    for (const char* set : {"train.steps=10", "train.batch_size=2", "train.save_every=0"}) sets.emplace_back(set);
    sets.push_back("train.output=" + dir.file(output));
    return run(sets);
  };
  const TrainResult one = result({"one", 1, 1, {}, GetParam().data}, "one");
  const TrainResult many = result(GetParam(), "many");
  ASSERT_EQ(one.metrics.size(), 11u);
  ASSERT_EQ(many.metrics.size(), 11u);
  EXPECT_NEAR(*many.heldout_before, *one.heldout_before, 1e-5);
  EXPECT_NEAR(*many.heldout_after, *one.heldout_after, 1e-5);
  for (size_t step = 1; step <= 10; ++step) {
    const StepMetrics &got = many.metrics[step], &want = one.metrics[step];
    EXPECT_NEAR(got.loss, want.loss, 1e-5) << "step " << step;
    EXPECT_NEAR(got.grad_norm, want.grad_norm, 1e-4 * want.grad_norm) << "step " << step;
    EXPECT_EQ(got.tokens, want.tokens);
    EXPECT_GE(got.balance, 1.0);
    EXPECT_EQ(got.backends, want.backends);
  }
}

INSTANTIATE_TEST_SUITE_P(
    , RanksRun,
    ::testing::Values(Ranks{"cp2", 1, 2, {"chunk_size=8"}, ""},
                      Ranks{"cp4_three_stages", 1, 4, {"chunk_size=5", "stages=3"}, ""},
                      Ranks{"cp3_backward_stages", 1, 3, {"chunk_size=5", "backward_stages=3"}, ""},
                      Ranks{"cp3_kept_keys", 1, 3, {"chunk_size=5", "stages=2", "keep_remote_keys=true"}, ""},
                      Ranks{"cp2_stages_chosen", 1, 2, {"chunk_size=8", "stages=0"}, ""},
                      Ranks{"dp2_cp2", 2, 2, {"chunk_size=8"}, ""}, Ranks{"dp2", 2, 1, {}, ""},
                      Ranks{"ranks_without_tokens", 1, 4, {"chunk_size=24"}, ""},
                      Ranks{"short_documents", 1, 2, {"chunk_size=40"}, "packing=false"}),
    [](const auto& info) { return info.param.name; });

class ParallelRun : public testing::TinyRun {
 protected:
  const std::vector<std::string> cp2 = {"parallel.cp=2", "parallel.chunk_size=8", "parallel.stages=2"};

  std::vector<std::string> into(const std::string& output) const {
    std::vector<std::string> sets = cp2;
    sets.push_back("train.output=" + dir.file(output));
    return sets;
  }
};

TEST_F(ParallelRun, GoesOnBitForBit) {
  const std::vector<std::string> whole = numbers(run(into("whole")).metrics);
  const TrainHooks hooks{.on_step = [](const StepMetrics& m) {
    if (m.step == 5) throw Error(ErrorCode::kIo, "stopped");
  }};
  expect_error(ErrorCode::kIo, {"rank 0 of 2", "stopped"}, [&] { train(plan(into("cut")), hooks); });
  EXPECT_EQ(newest_checkpoint(dir.file("cut")), dir.file("cut/checkpoints/step-00000004"));
  EXPECT_EQ(numbers(run(into("cut"), Resume::kYes).metrics), whole);
  EXPECT_EQ(read_whole_file(dir.file("cut/checkpoints/step-00000008/model.safetensors")),
            read_whole_file(dir.file("whole/checkpoints/step-00000008/model.safetensors")));
}

TEST_F(ParallelRun, ActivationCheckpointingAndKeptKeysChangeNoNumber) {
  const auto plain = numbers(run(into("plain")).metrics);
  std::vector<std::string> sets = into("recomputed");
  sets.emplace_back("train.activation_checkpointing=true");
  EXPECT_EQ(numbers(run(sets).metrics), plain);
  sets = into("recomputed_with_kept_keys");
  sets.insert(sets.end(), {"train.activation_checkpointing=true", "parallel.keep_remote_keys=true"});
  EXPECT_EQ(numbers(run(sets).metrics), plain);
}

TEST_F(ParallelRun, Bf16Trains) {
  std::vector<std::string> sets = into("bf16");
  sets.emplace_back("train.dtype=bf16");
  const TrainResult result = run(sets);
  EXPECT_LT(result.metrics.back().loss, result.metrics[1].loss);
}

// A link so slow to start that one exchange is best; without that file the assumed link takes more.
TEST_F(ParallelRun, StagesAreChosenByTheCalibration) {
  const auto stages = [&](const std::vector<std::string>& more) {
    std::vector<std::string> sets{"parallel.cp=2", "parallel.chunk_size=8", "parallel.stages=0"};
    sets.insert(sets.end(), more.begin(), more.end());
    const TrainPlan run = plan(sets);
    const AttnMaskSpec mask = causal_mask(1 << 16, 1 << 16);
    return run.plans->plan(mask, {.cp = 8}, {.forward = {.stages = kAutoStages}}, {})->stages();
  };
  write_file_atomically(
      dir.file("slow.json"),
      R"({"flops_per_s": 1e12, "bytes_per_s": 1e12, "latency_s": 9, "source": "each costs nine seconds"})");
  EXPECT_GT(stages({"train.output=" + dir.file("a")}), 1);
  EXPECT_EQ(stages({"train.output=" + dir.file("b"), "parallel.calibration=" + dir.file("slow.json")}), 1);
  write_file_atomically(dir.file("bad.json"), R"({"flops_per_s": 1e12})");
  expect_error(ErrorCode::kConfig, {"bad.json", "bytes_per_s"}, [&] {
    stages({"train.output=" + dir.file("c"), "parallel.calibration=" + dir.file("bad.json")});
  });
}

// 1 + 2^-9 is a number of fp32, and 1 in bf16.
TEST_F(ParallelRun, Bf16GradientsOfSequencesAndRanksAreAddedUpInFp32) {
  const double parts[] = {1, 1.0 / 512};
  const std::string name = "model.layers.0.mlp.up_proj.weight";
  const auto gradient = [&](const std::vector<double>& of_sequences, CpGroup& world) {
    const auto model = load_causal_lm(dir.file("model"), {.dtype = at::kBFloat16, .training = true});
    for (const std::string& each : model->parameters().names()) {
      for (const double part : of_sequences) (model->parameters().at(each) * part).sum().backward();
    }
    sum_gradients(model->parameters(), world);
    return model->parameters().at(name).grad()[0][0];
  };
  const at::Tensor of_sequences = gradient({parts[0], parts[1]}, *single_rank_group());
  EXPECT_EQ(of_sequences.scalar_type(), at::kFloat);
  EXPECT_EQ(of_sequences.item<double>(), parts[0] + parts[1]);
  run_threads_group(2, {}, [&](CpGroup& world) {
    EXPECT_EQ(gradient({parts[world.rank()]}, world).item<double>(), parts[0] + parts[1]) << "rank " << world.rank();
  });
}

TEST_F(ParallelRun, ATraceHoldsAttentionAndExchangesOfEveryRank) {
  std::vector<std::string> sets = into("traced");
  sets.emplace_back("train.steps=1");
  sets.emplace_back("train.warmup_steps=0");
  TrainPlan traced = plan(sets);
  traced.trace = std::make_shared<Trace>();
  train(traced, {});
  std::map<std::string, int> attention[2];
  int exchanges[2] = {0, 0};
  for (const Trace::Span& span : traced.trace->spans()) {
    EXPECT_LE(span.begin, span.end);
    if (span.lane == "attention") ++attention[span.rank][span.name];
    if (span.lane == "exchange") ++exchanges[span.rank];
  }
  for (const int rank : {0, 1}) {
    // Two layers.
    const std::map<std::string, int> expected{{"forward host", 2},  {"forward stage 0", 2},  {"forward stage 1", 2},
                                              {"backward host", 2}, {"backward stage 0", 2}, {"backward stage 1", 2}};
    EXPECT_EQ(attention[rank], expected) << "rank " << rank;
    EXPECT_GE(exchanges[rank], 2 * (2 + 2 + 2)) << "rank " << rank;
  }
  const auto json = nlohmann::json::parse(traced.trace->to_json());
  EXPECT_GT(json["traceEvents"].size(), 24u);
  for (const auto& event : json["traceEvents"]) EXPECT_TRUE(event["ph"] == "X" || event["ph"] == "M") << event;
}

// Rank 1 holds back each of its exchanges until rank 0 waits for it. What rank 0 computes before that, it computes
// while the exchange is under way; had it waited first, no exchange would span its computing.
TEST_F(ParallelRun, PartsAreComputedWhileTheExchangeBehindThemIsUnderWay) {
  std::vector<std::string> sets = into("overlapped");
  for (const char* set : {"train.steps=1", "train.warmup_steps=0", "data.heldout=[]"}) sets.emplace_back(set);
  TrainPlan traced = plan(sets);
  traced.trace = std::make_shared<Trace>();
  std::mutex mutex;
  std::condition_variable changed;
  int waited_for = 0;  // exchanges, by rank 0
  const CpGroupOptions options{.observer = [&](const CpEvent& event) {
    traced.trace->add({event.rank, "exchange", event.call, event.begin, event.end});
  }};
  run_threads_group(2, options, [&](CpGroup& world) {
    int begun = 0;
    testing::FaultyGroup watched(world, [&](const std::string& point) {
      std::unique_lock lock(mutex);
      if (world.rank() == 0 && point == "wait for exchange") {
        ++waited_for;
        changed.notify_all();
      }
      if (world.rank() == 1 && point == "exchange") {
        ++begun;
        const bool released = changed.wait_for(lock, std::chrono::minutes(1), [&] { return waited_for >= begun; });
        if (!released) throw Error(ErrorCode::kInternal, "rank 0 does not wait for exchange " + std::to_string(begun));
      }
    });
    train(traced, {}, watched);
  });

  const std::vector<Trace::Span> spans = traced.trace->spans();
  const auto computed_during_an_exchange = [&](const Trace::Span& part) {
    return std::any_of(spans.begin(), spans.end(), [&](const Trace::Span& span) {
      return span.rank == 0 && span.name.starts_with("exchange") && span.begin <= part.begin && part.end <= span.end;
    });
  };
  std::map<std::string, int> overlapped, alone;
  for (const Trace::Span& span : spans) {
    if (span.rank == 0 && span.lane == "attention")
      ++(computed_during_an_exchange(span) ? overlapped : alone)[span.name];
  }
  // Two layers. In backward the gradients of one stage go home while the next one's are computed.
  using Parts = std::map<std::string, int>;
  EXPECT_EQ(overlapped, (Parts{{"forward host", 2},
                               {"forward stage 0", 2},
                               {"backward host", 2},
                               {"backward stage 0", 2},
                               {"backward stage 1", 2}}));
  EXPECT_EQ(alone, (Parts{{"forward stage 1", 2}}));
}

TEST_F(ParallelRun, ADryPlanTellsTheRanks) {
  EXPECT_THAT(describe(plan(cp2)), HasSubstr("ranks     2 (threads): dp 1, cp 2, chunks of 8"));
}

TEST_F(ParallelRun, ANonFiniteLossIsNamedOnce) {
  const SafetensorsFile file = SafetensorsFile::open(dir.file("model/model.safetensors"));
  std::vector<NamedTensor> weights;
  for (const std::string& name : file.names()) {
    weights.push_back({name, file.tensor(name).clone()});
    if (name == "model.layers.1.mlp.up_proj.weight") {
      weights.back().tensor[3][4] = std::numeric_limits<float>::quiet_NaN();
    }
  }
  write_safetensors(dir.file("model/model.safetensors"), weights, {});
  for (const std::string dp : {"1", "2"}) {
    std::vector<std::string> sets = into("run" + dp);
    sets.emplace_back("data.heldout=[]");
    sets.push_back("parallel.dp=" + dp);
    try {
      run(sets);
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kNonFinite);
      const std::string text = error.what();
      for (const char* part : {"step 1: the loss is", "model.layers.1.mlp on rank 0", "model.layers.1.mlp.up_proj"}) {
        EXPECT_THAT(text, HasSubstr(part));
      }
      EXPECT_EQ(text.find("the loss is"), text.rfind("the loss is"));
    }
    EXPECT_FALSE(newest_checkpoint(dir.file("run" + dp)).has_value());
  }
}

TEST_F(ParallelRun, RanksThatPlannedDifferentRunsAreNamed) {
  const TrainPlan two = plan(cp2);
  std::vector<std::string> other = cp2;
  other.emplace_back("train.lr=0.5");
  const TrainPlan another = plan(other);
  expect_error(ErrorCode::kRankDisagreement, {"the run", "on rank 0", "on rank 1"}, [&] {
    run_threads_group(2, {}, [&](CpGroup& world) { train(world.rank() == 1 ? another : two, {}, world); });
  });
  EXPECT_FALSE(std::filesystem::exists(dir.file("run")));
}

// What each of these ranks throws, of which none takes the others with it.
std::vector<std::string> errors_of_ranks(int32_t size, ErrorCode code,
                                         const std::function<void(CpGroup& group)>& body) {
  std::vector<std::string> errors(size);
  run_threads_group(size, {}, [&](CpGroup& group) {
    try {
      body(group);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      errors[group.rank()] = error.what();
    }
  });
  return errors;
}

TEST(OnEveryRank, AMaskThatIsNotTheBatchsIsNamed) {
  PlanCache plans;
  const auto errors = errors_of_ranks(3, ErrorCode::kInvalidArgument, [&](CpGroup& group) {
    prepare_llm_batch({.input_ids = at::arange(8), .mask = causal_mask(9, 9)}, group, {.dispatch = {.chunk_size = 2}},
                      plans);
  });
  for (const std::string& error : errors) EXPECT_THAT(error, AllOf(HasSubstr("9 x 9"), HasSubstr("8 tokens")));
}

TEST(OnEveryRank, PlansThatDifferAreNamedBeforeAnythingIsExchanged) {
  const auto errors = errors_of_ranks(3, ErrorCode::kRankDisagreement, [&](CpGroup& group) {
    PlanCache plans;
    const auto prepare = [&] {
      prepare_llm_batch({.input_ids = at::arange(8)}, group, {.dispatch = {.chunk_size = group.rank() == 1 ? 1 : 2}},
                        plans);
    };
    try {
      prepare();
    } catch (const Error&) {
      EXPECT_EQ(group.elements_sent(), 0);
      throw;
    }
  });
  for (const std::string& error : errors) {
    EXPECT_THAT(error, AllOf(HasSubstr("the attention plan"), HasSubstr("on rank 0, 2"), HasSubstr("on rank 1")));
  }
}

TEST(OnEveryRank, AGridThatIsNotTheWorldIsNamed) {
  const auto errors =
      errors_of_ranks(3, ErrorCode::kConfig, [](CpGroup& group) { make_device_mesh(group, {.dp = 1, .cp = 2}); });
  for (const std::string& error : errors)
    EXPECT_THAT(error, AllOf(HasSubstr("parallel.cp = 2"), HasSubstr("and 3 were")));
}

TEST(DeviceMesh, RowsShareASequence) {
  run_threads_group(6, {}, [](CpGroup& world) {
    const DeviceMesh mesh = make_device_mesh(world, {.dp = 2, .cp = 3});
    EXPECT_EQ(mesh.cp->size(), 3);
    EXPECT_EQ(mesh.cp->rank(), world.rank() % 3);
    EXPECT_EQ(mesh.dp_rank, world.rank() / 3);
    at::Tensor sum = at::tensor({int64_t{world.rank()}}, at::kLong);
    mesh.cp->all_reduce(sum, ReduceOp::kSum)->wait();
    EXPECT_EQ(sum.item<int64_t>(), mesh.dp_rank == 0 ? 0 + 1 + 2 : 3 + 4 + 5);
  });
}

TEST(DeviceMesh, AShapeThatIsNotTheWorldNamesBoth) {
  expect_error(ErrorCode::kConfig, {"parallel.dp = 2", "parallel.cp = 2", "4 ranks", "3"},
               [] { run_threads_group(3, {}, [](CpGroup& world) { make_device_mesh(world, {.dp = 2, .cp = 2}); }); });
}

}  // namespace
}  // namespace attnmux
