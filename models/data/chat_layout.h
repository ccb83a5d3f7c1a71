// How a model writes a conversation, as the chat template in its folder says.
//
//   ChatLayout layout = ChatLayout::from_folder("models/qwen2.5-vl");
//   for (const ChatLayout::Turn& turn : layout.turns(conversation)) ...      // <|im_start|>ROLE\nTEXT<|im_end|>\n
//
// A template is a program in Jinja, which is not run here: it is recognised by its text, with its default system
// message left open, and an unknown one is an error. Known are those of Qwen2, Qwen2.5, Qwen2.5-VL and SmolLM2, and
// ChatML without a default system message. Immutable, any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/data/conversation.h"

namespace attnmux {

class ChatLayout {
 public:
  // From chat_template.jinja, or "chat_template" in chat_template.json or tokenizer_config.json, in this order. Throws
  // Error(kConfig) naming the files looked into, or the one whose template is none of those known.
  static ChatLayout from_folder(const std::string& dir);
  static ChatLayout from_template(std::string_view text, const std::string& origin);

  struct Turn {
    std::string role;
    std::string text;  // with kImage for each image
  };
  static constexpr std::string_view kBegin = "<|im_start|>", kEnd = "<|im_end|>", kImageToken = "<|image_pad|>";
  static constexpr std::string_view kImage = "<|vision_start|><|image_pad|><|vision_end|>";

  // In order; the default system message first, where there is one and the conversation brings none.
  std::vector<Turn> turns(const Conversation& conversation) const;

 private:
  explicit ChatLayout(std::optional<std::string> default_system) : default_system_(std::move(default_system)) {}
  std::optional<std::string> default_system_;
};

}  // namespace attnmux
