// Conversations, as chat models are trained on them: messages of text and images.
//
//   {"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]},
//                 {"role": "assistant", "content": "A cat."}], "images": ["cat.png"]}
//
// Plain values; parsing is a pure function, any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace attnmux {

struct ContentPart {
  bool is_image = false;
  std::string text = {};
};

struct Message {
  std::string role;  // "system", "user", "assistant"
  std::vector<ContentPart> parts;
};

struct Conversation {
  std::vector<Message> messages;    // at least one
  std::vector<std::string> images;  // paths, in the order in which the messages show them
};

// `content` is a string or a list of {"type": "text", "text": ...} and {"type": "image"}; paths of images that are
// relative are relative to `folder`. Throws Error(kBadFile) naming `origin` ("train.jsonl:12"), key, value and what is
// allowed: no messages, an unknown role, type or key, an empty path.
Conversation parse_conversation(std::string_view json, const std::string& origin, const std::string& folder);

}  // namespace attnmux
