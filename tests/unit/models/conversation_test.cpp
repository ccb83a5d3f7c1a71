// Conversations as tokens, against transformers' apply_chat_template: tests/golden/make_chat_goldens.py.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "models/data/conversation_encoder.h"
#include "models/io/atomic_file.h"
#include "tests/unit/expect_error.h"
#include "tests/common/temp_dir.h"

namespace attnmux {
namespace {

using nlohmann::json;

const std::string kGolden = ATTNMUX_SOURCE_DIR "/tests/golden/";

Tokenizer tokenizer() {
  static const Tokenizer loaded = Tokenizer::from_file(kGolden + "chat/tokenizer.json");
  return loaded;
}

ModelConfig text_model() {
  ModelConfig config;
  config.architecture = "Qwen2ForCausalLM";
  return config;
}

ModelConfig vision_model() {
  ModelConfig config;
  config.architecture = "Qwen2_5_VLForConditionalGeneration";
  config.vision = VisionConfig{};
  config.image_token_id = tokenizer().token_id("<|image_pad|>").value();
  config.video_token_id = tokenizer().token_id("<|video_pad|>").value();
  return config;
}

// A folder with what a conversation needs of a model.
class Chat {
 public:
  explicit Chat(const std::string& layout = "qwen2_5_vl.jinja") {
    dir.write("chat_template.jinja", read_whole_file(kGolden + "chat/" + layout));
    dir.write("preprocessor_config.json", R"({"image_processor_type": "Qwen2VLImageProcessor"})");
  }

  TokenizedDocument encode(const std::string& line, const ModelConfig& model = vision_model(),
                           const ChatOptions& options = {.max_tokens = 1000}) const {
    const Conversation conversation = parse_conversation(line, "train.jsonl:7", kGolden + "images");
    return ConversationEncoder(dir.path(), model, tokenizer(), options)
        .encode({.text = "", .origin = "train.jsonl:7", .conversation = conversation});
  }

  TempDir dir;
};

struct Case {
  std::string name;
  json golden;
};
void PrintTo(const Case& c, std::ostream* stream) { *stream << c.name; }

std::vector<Case> cases() {
  std::vector<Case> cases;
  const json goldens = json::parse(read_whole_file(kGolden + "chat/goldens.json"));
  for (const json& golden : goldens.at("cases")) {
    cases.push_back({golden.at("name").get<std::string>(), golden});
  }
  return cases;
}

class ChatGolden : public ::testing::TestWithParam<Case> {};

TEST_P(ChatGolden, TokensAndLabelsEqualTransformers) {
  const json& golden = GetParam().golden;
  const std::string layout = golden.at("template").get<std::string>();
  const json line = {{"messages", golden.at("messages")}, {"images", golden.at("images")}};
  const TokenizedDocument got =
      Chat(layout).encode(line.dump(), layout == "qwen2_5_vl.jinja" ? vision_model() : text_model());
  EXPECT_EQ(got.ids, golden.at("ids").get<std::vector<int64_t>>());
  std::vector<int64_t> learned;
  for (size_t i = 0; i < got.is_label.size(); ++i) {
    if (got.is_label[i]) learned.push_back(static_cast<int64_t>(i));
  }
  EXPECT_EQ(learned, golden.at("learned").get<std::vector<int64_t>>());
  EXPECT_EQ(got.is_label.size(), got.ids.size());
  EXPECT_EQ(got.images.size(), golden.at("images").size());
  EXPECT_FALSE(got.divisible);
}

INSTANTIATE_TEST_SUITE_P(Conversations, ChatGolden, ::testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

TEST(Conversation, WithLabelsAllEverythingButImagesIsLearned) {
  const TokenizedDocument got = Chat().encode(
      R"({"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]}],
          "images": ["28x28.png"]})",
      vision_model(), {.labels = ChatLabels::kAll, .max_tokens = 1000});
  for (size_t i = 0; i < got.ids.size(); ++i) {
    EXPECT_EQ(got.is_label[i], got.ids[i] != vision_model().image_token_id) << i;
  }
}

TEST(Conversation, PixelsAreReadWhenTheyAreNeeded) {
  const TempDir dir;
  dir.write("a.png", read_whole_file(kGolden + "images/28x28.png"));
  const auto processor = std::make_shared<const ImageProcessor>(
      ImageProcessor::from_json(R"({"image_processor_type": "Qwen2VLImageProcessor"})", "preprocessor_config.json"));
  const DocumentImage image = find_image(dir.file("a.png"), "train.jsonl:7", processor);
  EXPECT_EQ(image.tokens(), 4);  // 56 x 56 pixels are the least
  EXPECT_EQ(load_pixels({image, image}).sizes(), (std::vector<int64_t>{32, 1176}));
  EXPECT_FALSE(load_pixels({}).defined());
  dir.write("a.png", read_whole_file(kGolden + "images/20x4000.png"));
  expect_error(ErrorCode::kBadFile, {"train.jsonl:7: ", "a.png", "has changed since"}, [&] { load_pixels({image}); });
}

struct BadLine {
  std::string name;
  std::string line;
  std::vector<std::string> message;
};
void PrintTo(const BadLine& bad, std::ostream* stream) { *stream << bad.name; }

class ConversationBad : public ::testing::TestWithParam<BadLine> {};

TEST_P(ConversationBad, IsRefusedNamingFileAndLine) {
  std::vector<std::string> message = GetParam().message;
  message.push_back("train.jsonl:7: ");
  expect_error(ErrorCode::kBadFile, message, [] { Chat().encode(GetParam().line); });
}

std::string user(const std::string& content, const std::string& rest = "") {
  return R"({"messages": [{"role": "user", "content": )" + content + R"(}, {"role": "assistant", "content": "b"}])" +
         rest + "}";
}

INSTANTIATE_TEST_SUITE_P(
    Lines, ConversationBad,
    ::testing::Values(
        BadLine{"NoMessages", R"({"messages": []})", {"messages is an array", "at least one"}},
        BadLine{"MessagesNoList", R"({"messages": "hello"})", {"messages is \"hello\"", "array"}},
        BadLine{"TextToo", R"({"text": "a", "messages": []})", {"text is \"a\"", "either"}},
        BadLine{"UnknownRole",
                R"({"messages": [{"role": "human", "content": "a"}]})",
                {"messages[0].role is \"human\"", "\"user\""}},
        BadLine{"NoRole", R"({"messages": [{"content": "a"}]})", {"messages[0].role is missing"}},
        BadLine{"NoContent", R"({"messages": [{"role": "user"}]})", {"messages[0].content is missing"}},
        BadLine{
            "ContentNumber", R"({"messages": [{"role": "user", "content": 3}]})", {"content is 3", "a text or a list"}},
        BadLine{"ToolCalls",
                R"({"messages": [{"role": "assistant", "content": "", "tool_calls": [1]}]})",
                {"tool_calls", "not read", "role, content"}},
        BadLine{"Video", user(R"([{"type": "video"}])"), {"content[0].type is \"video\"", "\"image\""}},
        BadLine{"PathInPart", user(R"([{"type": "image", "image": "28x28.png"}])"), {"content[0].image", "not read"}},
        BadLine{"ImageNoPath", user("\"a\"", R"(, "images": [""])"), {"images[0] is \"\"", "path"}},
        BadLine{"ImageNumber", user("\"a\"", R"(, "images": [3])"), {"images[0] is 3", "text"}},
        BadLine{"MoreImages", user("\"a\"", R"(, "images": ["28x28.png"])"), {"1 image in", "0 placeholders in"}},
        BadLine{"MorePlaceholders",
                user(R"([{"type": "image"}, {"type": "image"}])", R"(, "images": ["28x28.png"])"),
                {"1 image in", "2 placeholders in"}},
        BadLine{"SpelledPlaceholder", user("\"<|image_pad|>\""), {"0 images in", "1 placeholder in"}},
        BadLine{"SpelledVideo", user("\"<|video_pad|>\""), {"videos are not built"}},
        BadLine{"MissingImage", user(R"([{"type": "image"}])", R"(, "images": ["none.png"])"), {"images/none.png"}},
        BadLine{"NoImageFile",
                user(R"([{"type": "image"}])", R"(, "images": ["../chat/chatml.jinja"])"),
                {"chat/chatml.jinja", "PNG and JPEG"}},
        BadLine{"LongImage",
                user(R"([{"type": "image"}])", R"(, "images": ["1x4000.png"])"),
                {"images/1x4000.png", "200 times"}},
        BadLine{"NothingToLearn",
                R"({"messages": [{"role": "user", "content": "a"}]})",
                {"no message of the role assistant", "data.labels"}}),
    [](const auto& info) { return info.param.name; });

TEST(Conversation, LongerThanASequenceIsRefused) {
  expect_error(ErrorCode::kBadFile, {"train.jsonl:7", "tokens, 143 of them of images", "data.seq_len is 100"}, [] {
    Chat().encode(user(R"([{"type": "image"}])", R"(, "images": ["20x4000.png"])"), vision_model(),
                  {.max_tokens = 100});
  });
}

TEST(Conversation, ImagesToATextModelAreRefused) {
  expect_error(ErrorCode::kBadFile, {"train.jsonl:7: 1 image for Qwen2ForCausalLM", "reads text alone"},
               [] { Chat().encode(user(R"([{"type": "image"}])", R"(, "images": ["28x28.png"])"), text_model()); });
}

TEST(ConversationModel, WhoseFilesDoNotBelongTogetherIsRefused) {
  Chat chat;
  ModelConfig other_token = vision_model(), other_patch = vision_model();
  ++other_token.image_token_id;
  other_patch.vision->patch_size = 16;
  expect_error(ErrorCode::kConfig, {"<|image_pad|> is token", "image_token_id"},
               [&] { chat.encode(user("\"a\""), other_token); });
  expect_error(ErrorCode::kConfig, {"patch_size of the image processor is 14", "is 16"},
               [&] { chat.encode(user("\"a\""), other_patch); });
  chat.dir.write("preprocessor_config.json", R"({"image_processor_type": "CLIPImageProcessor"})");
  expect_error(ErrorCode::kConfig, {"image_processor_type is \"CLIPImageProcessor\""},
               [&] { chat.encode(user("\"a\"")); });
  const Tokenizer bare = Tokenizer::from_file(kGolden + "tokenizers/gpt2.json");
  expect_error(ErrorCode::kConfig, {"<|im_start|>", "tokenizer.json has no such token"},
               [&] { ConversationEncoder(chat.dir.path(), text_model(), bare, {}); });
}

TEST(ChatLayout, OfAFolder) {
  const TempDir dir;
  expect_error(ErrorCode::kConfig, {dir.path(), "no chat template", "tokenizer_config.json"},
               [&] { ChatLayout::from_folder(dir.path()); });
  const std::string plain = read_whole_file(kGolden + "chat/chatml.jinja");
  const std::string with_system = read_whole_file(kGolden + "chat/qwen2.jinja");
  const Conversation hello{.messages = {{.role = "user", .parts = {{.text = "hello"}}}}, .images = {}};
  const auto first_turn = [&] { return ChatLayout::from_folder(dir.path()).turns(hello).front(); };

  dir.write("tokenizer_config.json", json{{"chat_template", {{{"name", "default"}, {"template", plain}}}}}.dump());
  EXPECT_EQ(first_turn().text, "hello");
  dir.write("chat_template.json", json{{"chat_template", with_system}}.dump());
  EXPECT_EQ(first_turn().text, "You are a helpful assistant.");
  std::string other = with_system;
  other.replace(other.find("You are a"), 28, "Be brief.");
  dir.write("chat_template.jinja", other);
  EXPECT_EQ(first_turn().text, "Be brief.");
}

TEST(ChatLayout, AnotherTemplateIsRefused) {
  std::string changed = read_whole_file(kGolden + "chat/qwen2.jinja");
  changed.replace(changed.find("message['content']"), 18, "message['content'] | trim");
  expect_error(ErrorCode::kConfig, {"f.jinja: the chat template is none of those", "Qwen2.5-VL", "apply_chat_template"},
               [&] { ChatLayout::from_template(changed, "f.jinja"); });
}

}  // namespace
}  // namespace attnmux
