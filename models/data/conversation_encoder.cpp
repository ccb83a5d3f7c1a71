#include "models/data/conversation_encoder.h"

#include <algorithm>
#include <utility>

#include "attnmux/error.h"

namespace attnmux {
namespace {

[[noreturn]] void fail(const Document& document, const std::string& what) {
  throw Error(ErrorCode::kBadFile, document.origin + ": " + what);
}

std::string counted(size_t count, const std::string& thing) {
  return std::to_string(count) + " " + thing + (count == 1 ? "" : "s");
}

std::shared_ptr<const ImageProcessor> read_processor(const std::string& dir, const ModelConfig& config) {
  if (!config.vision) return nullptr;
  auto processor = std::make_shared<const ImageProcessor>(ImageProcessor::from_folder(dir));
  const auto check = [&](const char* key, int64_t got, const char* want_key, int64_t want) {
    if (got == want) return;
    throw Error(ErrorCode::kConfig, dir + ": " + key + " of the image processor is " + std::to_string(got) +
                                        ", vision_config." + want_key + " in config.json is " + std::to_string(want));
  };
  const ImageProcessorConfig& made = processor->config();
  check("patch_size", made.patch_size, "patch_size", config.vision->patch_size);
  check("merge_size", made.merge_size, "spatial_merge_size", config.vision->spatial_merge_size);
  check("temporal_patch_size", made.temporal_patch_size, "temporal_patch_size", config.vision->temporal_patch_size);
  return processor;
}

int64_t id_of(const Tokenizer& tokenizer, std::string_view token, const std::string& dir) {
  if (const std::optional<int64_t> id = tokenizer.token_id(token)) return *id;
  throw Error(ErrorCode::kConfig,
              dir + ": the chat template writes " + std::string(token) + ", tokenizer.json has no such token");
}

}  // namespace

ConversationEncoder::ConversationEncoder(const std::string& model_dir, const ModelConfig& config,
                                         const Tokenizer& tokenizer, const ChatOptions& options)
    : model_dir_(model_dir),
      config_(config),
      tokenizer_(tokenizer),
      options_(options),
      layout_(ChatLayout::from_folder(model_dir)),
      processor_(read_processor(model_dir, config)) {
  id_of(tokenizer_, ChatLayout::kBegin, model_dir_);
  id_of(tokenizer_, ChatLayout::kEnd, model_dir_);
  if (!processor_) return;
  const int64_t image = id_of(tokenizer_, ChatLayout::kImageToken, model_dir_);
  if (image != config_.image_token_id) {
    throw Error(ErrorCode::kConfig,
                model_dir_ + ": " + std::string(ChatLayout::kImageToken) + " is token " + std::to_string(image) +
                    " in tokenizer.json, image_token_id in config.json is " + std::to_string(config_.image_token_id));
  }
}

TokenizedDocument ConversationEncoder::encode(const Document& document) const {
  std::vector<DocumentImage> images = find_images(document);
  TokenizedDocument tokens;
  for (const ChatLayout::Turn& turn : layout_.turns(document.conversation.value())) append_turn(turn, tokens);
  TokenizedDocument expanded = expand_images(document, tokens, std::move(images));
  expanded.divisible = false;
  if (std::ssize(expanded.ids) > options_.max_tokens) {
    int64_t of_images = 0;
    for (const DocumentImage& image : expanded.images) of_images += image.tokens();
    fail(document, "the conversation has " + std::to_string(expanded.ids.size()) + " tokens, " +
                       std::to_string(of_images) + " of them of images, and is not cut; data.seq_len is " +
                       std::to_string(options_.max_tokens) +
                       ": raise it, shorten the conversation, or scale its images down");
  }
  if (std::find(expanded.is_label.begin(), expanded.is_label.end(), true) == expanded.is_label.end()) {
    fail(document,
         "no message of the role assistant, so there is nothing to learn; add one, or set data.labels = \"all\"");
  }
  return expanded;
}

std::vector<DocumentImage> ConversationEncoder::find_images(const Document& document) const {
  const Conversation& conversation = document.conversation.value();
  size_t shown = 0;
  for (const Message& message : conversation.messages) {
    shown += std::count_if(message.parts.begin(), message.parts.end(), [](const auto& part) { return part.is_image; });
  }
  if (!processor_ && shown + conversation.images.size() > 0) {
    fail(document, counted(std::max(shown, conversation.images.size()), "image") + " for " + config_.architecture +
                       " (" + model_dir_ +
                       "), which reads text alone; take a vision-language model or remove the images");
  }
  std::vector<DocumentImage> images;
  for (const std::string& path : conversation.images) {
    images.push_back(find_image(path, document.origin, processor_));
  }
  return images;
}

void ConversationEncoder::append_turn(const ChatLayout::Turn& turn, TokenizedDocument& tokens) const {
  const auto append = [&](const std::vector<int64_t>& ids, bool is_label) {
    tokens.ids.insert(tokens.ids.end(), ids.begin(), ids.end());
    tokens.is_label.insert(tokens.is_label.end(), ids.size(), is_label);
  };
  const auto encode = [&](std::string_view text) { return tokenizer_.encode(text, {.add_special_tokens = false}); };
  const bool all = options_.labels == ChatLabels::kAll, learned = all || turn.role == "assistant";
  // Special tokens cut a text apart, so that the pieces between them are encoded as in the whole. A piece is the role's
  // line and the text: where one token spans both, it belongs to the text.
  const std::string line = turn.role + "\n";
  const std::vector<int64_t> ids = encode(line + turn.text);
  append(encode(ChatLayout::kBegin), all);
  size_t head = 0;
  for (size_t bytes = 0; head < ids.size(); ++head) {
    bytes += tokenizer_.decode({ids[head]}).size();
    if (bytes > line.size()) break;
  }
  append({ids.begin(), ids.begin() + static_cast<int64_t>(head)}, all);
  append({ids.begin() + static_cast<int64_t>(head), ids.end()}, learned);
  append(encode(ChatLayout::kEnd), learned);
  append(encode("\n"), all);
}

// One placeholder for each image, be it a part of the content or spelled in a text, becomes as many as it has tokens.
TokenizedDocument ConversationEncoder::expand_images(const Document& document, const TokenizedDocument& tokens,
                                                     std::vector<DocumentImage> images) const {
  const auto placeholders = processor_ ? std::count(tokens.ids.begin(), tokens.ids.end(), config_.image_token_id) : 0;
  if (placeholders != std::ssize(images)) {
    fail(document, counted(images.size(), "image") + " in \"images\", " + counted(placeholders, "placeholder") +
                       " in \"messages\"; each image has its {\"type\": \"image\"} in a message's content");
  }
  if (processor_ && std::count(tokens.ids.begin(), tokens.ids.end(), config_.video_token_id) > 0) {
    fail(document, "the text has a video's placeholder; videos are not built");
  }
  TokenizedDocument expanded;
  size_t image = 0;
  for (size_t i = 0; i < tokens.ids.size(); ++i) {
    const bool is_image = processor_ && tokens.ids[i] == config_.image_token_id;
    const int64_t count = is_image ? images[image++].tokens() : 1;
    expanded.ids.insert(expanded.ids.end(), count, tokens.ids[i]);
    expanded.is_label.insert(expanded.is_label.end(), count, tokens.is_label[i] && !is_image);
  }
  expanded.images = std::move(images);
  return expanded;
}

}  // namespace attnmux
