// Training on conversations: of a vision-language model on images, and of a text model.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "attnmux/log.h"
#include "models/io/atomic_file.h"
#include "models/io/safetensors.h"
#include "models/train/evaluate.h"
#include "models/train/trainer.h"
#include "tests/common/cpu_backends.h"
#include "tests/common/tiny_model.h"
#include "tests/unit/expect_error.h"
#include "tests/common/temp_dir.h"
#include "tiny_vlm.h"

namespace attnmux {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::Contains;

const std::string kImages = ATTNMUX_SOURCE_DIR "/tests/golden/images/";

std::string question(const std::string& image, const std::string& answer) {
  const json content = {{{"type", "image"}}, {{"type", "text"}, {"text", "What?"}}};
  return json{{"messages", {{{"role", "user"}, {"content", content}}, {{"role", "assistant"}, {"content", answer}}}},
              {"images", {image}}}
             .dump() +
         "\n";
}

std::string talk(const std::string& text, const std::string& answer) {
  return json{{"messages", {{{"role", "user"}, {"content", text}}, {{"role", "assistant"}, {"content", answer}}}}}
             .dump() +
         "\n";
}

class ChatRun : public ::testing::Test {
 protected:
  ChatRun() {
    set_log_level(LogLevel::kError);
    testing::make_tiny_vlm(dir.file("model"));
    for (const char* name : {"grey1.png", "rgb8.png", "palette8.png", "28x28.png", "exif6.jpg", "cmyk.jpg"}) {
      dir.write(name, read_whole_file(kImages + name));
    }
    dir.write("train.jsonl", question("grey1.png", "stripes") + question("rgb8.png", "slopes") +
                                 question("palette8.png", "colours") + question("28x28.png", "a square") +
                                 question("exif6.jpg", "on its side") + talk("Hello", "Hello there"));
    dir.write("heldout.jsonl", question("cmyk.jpg", "slopes"));
    dir.write("f.toml", R"([model]
path = "model"
attn_implementation = "magi"
[data]
kind = "jsonl"
path = ["train.jsonl"]
heldout = ["heldout.jsonl"]
seq_len = 256
[train]
steps = 4
batch_size = 2
lr = 1e-2
seed = 3
save_every = 2
output = "run"
)");
  }

  TrainPlan plan(const std::vector<std::string>& sets = {}, Resume resume = Resume::kNo) {
    return plan_training(load_train_config(dir.file("f.toml"), sets), testing::cpu_backends(), resume);
  }
  TrainResult run(const std::vector<std::string>& sets = {}) { return train(plan(sets), {}); }

  TempDir dir;
};

TEST_F(ChatRun, LossFallsAndTheTowerLearns) {
  const TrainResult result = run({"train.steps=12", "train.save_every=0"});
  const StepMetrics &first = result.metrics[1], &last = result.metrics.back();
  EXPECT_LT(last.loss, 0.8 * first.loss);
  EXPECT_LT(*result.heldout_after, *result.heldout_before);
  EXPECT_EQ(last.backends, (std::map<std::string, int64_t>{{"magi", 2}, {"sdpa", 2}}));

  // A Hugging Face folder, processor included.
  for (const char* name : {"config.json", "tokenizer.json", "chat_template.jinja", "preprocessor_config.json"}) {
    EXPECT_TRUE(fs::exists(result.checkpoint + "/" + name)) << name;
  }
  const SafetensorsFile before = SafetensorsFile::open(dir.file("model/model.safetensors"));
  const SafetensorsFile after = SafetensorsFile::open(result.checkpoint + "/model.safetensors");
  for (const char* name : {"model.visual.patch_embed.proj.weight", "model.visual.blocks.0.attn.qkv.weight",
                           "model.visual.merger.mlp.2.weight", "model.language_model.layers.1.mlp.up_proj.weight"}) {
    EXPECT_GT((after.tensor(name) - before.tensor(name)).abs().max().item<double>(), 1e-3) << name;
  }
}

TEST_F(ChatRun, EachModuleHasItsBackend) {
  const TrainPlan planned = plan();
  std::vector<std::string> modules;
  for (const ModuleChoice& choice : planned.table->choices()) {
    modules.push_back(choice.module.path + " " + choice.module.role + " " + choice.backend_id);
  }
  EXPECT_THAT(modules,
              ::testing::ElementsAre("model.visual.blocks.0.attn vision sdpa", "model.visual.blocks.1.attn vision sdpa",
                                     "model.language_model.layers.0.self_attn language magi",
                                     "model.language_model.layers.1.self_attn language magi"));
}

TEST_F(ChatRun, GoesOnBitForBitWhereItStopped) {
  struct Stop {};
  const auto losses = [](const TrainResult& result) {
    std::vector<double> losses;
    for (const StepMetrics& metrics : result.metrics) {
      losses.push_back(metrics.loss);
      losses.push_back(metrics.grad_norm);
      losses.push_back(metrics.heldout_loss.value_or(0));
    }
    return losses;
  };
  const std::vector<double> whole = losses(run({"train.output=" + dir.file("whole")}));
  const TrainHooks stop{.on_step = [](const StepMetrics& metrics) {
    if (metrics.step == 3) throw Stop{};
  }};
  EXPECT_THROW(train(plan(), stop), Stop);
  const TrainPlan rest = plan({}, Resume::kYes);
  EXPECT_EQ(rest.steps_done, 2);
  EXPECT_EQ(losses(train(rest, {})), whole);
}

TEST_F(ChatRun, RanksHaveTheLossesOfOne) {
  const auto losses = [&](const std::string& dp, const std::string& cp) {
    return run({"parallel.dp=" + dp, "parallel.cp=" + cp, "parallel.chunk_size=16", "train.save_every=0",
                "train.steps=2", "train.output=" + dir.file("dp" + dp + "cp" + cp)})
        .metrics;
  };
  const std::vector<StepMetrics> one = losses("1", "1");
  for (const auto& [dp, cp] : {std::pair("1", "2"), std::pair("2", "2")}) {
    const std::vector<StepMetrics> many = losses(dp, cp);
    ASSERT_EQ(many.size(), one.size());
    for (size_t step = 1; step < one.size(); ++step) {
      EXPECT_NEAR(many[step].loss, one[step].loss, 1e-5) << "dp " << dp << " cp " << cp << " step " << step;
      EXPECT_NEAR(many[step].grad_norm, one[step].grad_norm, 1e-4 * one[step].grad_norm);
    }
    EXPECT_NEAR(*many.back().heldout_loss, *one.back().heldout_loss, 1e-5);
  }
}

// One replica's sequence has an image, the other's none: they run other modules.
TEST_F(ChatRun, ANonFiniteLossIsNamedWhateverEachReplicaRuns) {
  dir.write("train.jsonl", question("28x28.png", "a square") + talk("Hello", "Hello there"));
  const SafetensorsFile file = SafetensorsFile::open(dir.file("model/model.safetensors"));
  std::vector<NamedTensor> weights;
  for (const std::string& name : file.names()) weights.push_back({name, file.tensor(name).clone()});
  for (NamedTensor& weight : weights) {
    if (weight.name == "model.language_model.layers.1.mlp.up_proj.weight") weight.tensor.fill_(NAN);
  }
  write_safetensors(dir.file("model/model.safetensors"), weights, {});
  expect_error(ErrorCode::kNonFinite,
               {"is not finite is model.language_model.layers.1.mlp on rank", "layers.1.mlp.up_proj.weight"}, [&] {
                 run({"parallel.dp=2", "data.packing=false", "data.heldout=[]"});
               });
}

TEST_F(ChatRun, TextAloneToAVisionLanguageModel) {
  std::string lines = "{\"text\": \"a text of its own, which is longer than most and may be cut\"}\n";
  for (int i = 0; i < 6; ++i) lines += talk("Hello " + std::to_string(i), "Hello there");
  dir.write("train.jsonl", lines);
  const TrainResult result = run({"data.heldout=[]"});
  EXPECT_LT(result.metrics.back().loss, result.metrics.front().loss);
  EXPECT_EQ(result.metrics.back().backends, (std::map<std::string, int64_t>{{"magi", 2}}));
}

TEST_F(ChatRun, ATextModelTakesConversations) {
  testing::make_tiny_model(dir.file("model"));
  json config = json::parse(read_whole_file(dir.file("model/config.json")));
  config["vocab_size"] = testing::kChatVocabulary;
  write_file_atomically(dir.file("model/config.json"), config.dump());
  write_file_atomically(dir.file("model/tokenizer.json"), testing::chat_tokenizer_json());
  write_file_atomically(dir.file("model/chat_template.jinja"),
                        read_whole_file(ATTNMUX_SOURCE_DIR "/tests/golden/chat/qwen2_5.jinja"));
  testing::write_random_weights(dir.file("model"));
  std::string lines;
  for (int i = 0; i < 6; ++i) lines += talk("Hello " + std::to_string(i), "Hello there");
  dir.write("train.jsonl", lines);
  const TrainResult result = run({"data.heldout=[]", "train.steps=6"});
  EXPECT_LT(result.metrics.back().loss, 0.9 * result.metrics.front().loss);
  dir.write("train.jsonl", question("rgb8.png", "slopes"));
  expect_error(ErrorCode::kBadFile, {"train.jsonl:1: 1 image for LlamaForCausalLM", "reads text alone"},
               [&] { plan({"train.output=other"}); });
}

TEST_F(ChatRun, BadDataIsToldBeforeAnythingIsWritten) {
  dir.write("train.jsonl", question("rgb8.png", "slopes") + question("none.png", "nothing"));
  expect_error(ErrorCode::kBadFile, {"train.jsonl:2: ", "none.png"}, [&] { plan(); });
  dir.write("train.jsonl", question("rgb8.png", std::string(300, 'x')));
  expect_error(ErrorCode::kBadFile, {"train.jsonl:1: the conversation has", "data.seq_len is 256"}, [&] { plan(); });
  expect_error(ErrorCode::kConfig, {"data.labels", "user", "assistant, all"}, [&] { plan({"data.labels=user"}); });
  EXPECT_FALSE(fs::exists(dir.file("run")));
}

TEST_F(ChatRun, AnImageThatIsCutOffEndsTheRunByName) {
  const std::string bytes = read_whole_file(kImages + "exif6.jpg");
  dir.write("exif6.jpg", bytes.substr(0, bytes.size() - 100));
  expect_error(ErrorCode::kBadFile, {"train.jsonl:5: ", "exif6.jpg", "cut off"}, [&] { run(); });
}

// Several documents in a sequence, tokens and labels as given, images from files.
TEST(TrainChat, LossOfPackedDocumentsWithImagesIsThatOfTransformers) {
  const std::string tests = ATTNMUX_SOURCE_DIR "/tests/golden/", dir = tests + "models/qwen2_5_vl";
  const json goldens = json::parse(read_whole_file(tests + "chat/goldens.json"));
  const auto processor = std::make_shared<const ImageProcessor>(ImageProcessor::from_json(
      R"({"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 4, "min_pixels": 64, "max_pixels": 1600})",
      "preprocessor_config.json"));
  auto documents = std::make_shared<std::vector<TokenizedDocument>>();
  int64_t learned = 0;
  for (const json& golden : goldens.at("training").at("documents")) {
    TokenizedDocument document{.ids = golden.at("ids").get<std::vector<int64_t>>(), .divisible = false};
    document.is_label.resize(document.ids.size());
    for (const json& position : golden.at("learned")) document.is_label[position.get<size_t>()] = true;
    for (const json& image : golden.at("images")) {
      document.images.push_back(find_image(kImages + image.get<std::string>(), "golden", processor));
    }
    learned += std::ssize(golden.at("learned"));
    documents->push_back(document);
  }
  const AttentionUse use{.masks = {MaskFamily::kVarlenCausal}, .max_tokens = 128, .training = true};
  const std::unique_ptr<CausalLm> model = load_causal_lm(dir, {});
  const RunContext run{
      .model = *model,
      .mesh = single_rank_mesh(),
      .table = std::make_shared<const SelectionTable>(select(
          testing::all_on("reference"), attention_modules(read_model_config(dir), use), testing::cpu_backends())),
      .cache = std::make_shared<PreparedCache>(),
      .plans = std::make_shared<PlanCache>(),
      .sharding = {}};
  const double want = goldens.at("training").at("loss").get<double>();
  for (const int64_t seq_len : {64, 128}) {  // two and three of them in a sequence
    const Evaluation got = evaluate(run, documents, seq_len);
    EXPECT_EQ(got.tokens, learned);
    EXPECT_NEAR(got.loss, want, 1e-5 * want);
  }
}

}  // namespace
}  // namespace attnmux
