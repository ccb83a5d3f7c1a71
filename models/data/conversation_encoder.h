// Conversations as tokens, with what is to be learned of them and their images.
//
//   ConversationEncoder encoder(model_dir, config, tokenizer, {.labels = ChatLabels::kAssistant, .max_tokens = 1024});
//   TokenizedDocument tokens = encoder.encode(document);
//
// Token ids are those of transformers' apply_chat_template, an image's placeholder repeated for each of its tokens.
// Immutable, any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "models/data/chat_layout.h"
#include "models/data/documents.h"
#include "models/data/image_processor.h"
#include "models/io/model_config.h"
#include "models/io/tokenizer.h"

namespace attnmux {

// kAssistant: the text of assistant's turns and the token that ends each. kAll: every token but those of images.
enum class ChatLabels : uint8_t { kAssistant, kAll };

struct ChatOptions {
  ChatLabels labels = ChatLabels::kAssistant;
  int64_t max_tokens = 0;  // of a conversation, which is never cut
};

class ConversationEncoder {
 public:
  // Reads the chat template, and for a model with a vision tower its image processor. Throws what ChatLayout and
  // ImageProcessor throw, and Error(kConfig) where template, tokenizer, processor and model do not belong together.
  ConversationEncoder(const std::string& model_dir, const ModelConfig& config, const Tokenizer& tokenizer,
                      const ChatOptions& options);

  // REQUIRES: document.conversation. Throws Error(kBadFile) naming file and line: images to a model without a tower,
  // another number of images than of placeholders, an image that cannot be read, nothing to learn, more than
  // max_tokens.
  TokenizedDocument encode(const Document& document) const;

 private:
  std::vector<DocumentImage> find_images(const Document& document) const;
  void append_turn(const ChatLayout::Turn& turn, TokenizedDocument& tokens) const;
  TokenizedDocument expand_images(const Document& document, const TokenizedDocument& tokens,
                                  std::vector<DocumentImage> images) const;

  std::string model_dir_;
  ModelConfig config_;
  Tokenizer tokenizer_;
  ChatOptions options_;
  ChatLayout layout_;
  std::shared_ptr<const ImageProcessor> processor_;  // nullptr: the model reads text alone
};

}  // namespace attnmux
