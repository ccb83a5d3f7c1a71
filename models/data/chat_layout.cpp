#include "models/data/chat_layout.h"

#include <array>
#include <filesystem>
#include <utility>

#include "attnmux/error.h"
#include "attnmux/hash.h"
#include "models/io/atomic_file.h"
#include "models/io/json_node.h"

namespace attnmux {
namespace {

// Hash of the template's text without its default system message. Each writes the same layout.
constexpr std::array<std::string_view, 4> kKnownTemplates = {
    "f80c1eea244f23cbb2826fbc1a89f1d8",  // ChatML alone
    "926dd373809bad047b72115916b05bfe",  // Qwen2, SmolLM2
    "512505ce2e4e1d30d22e17341a19d427",  // Qwen2.5
    "11896bc4b609162a6a5c28c9973f7d5d",  // Qwen2.5-VL
};

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
}

// Cuts "<|im_start|>system\nTEXT<|im_end|>" out of a template, and TEXT wherever it stands.
std::optional<std::string> take_default_system(std::string& text) {
  constexpr std::string_view kSystem = "<|im_start|>system\n";
  for (size_t at = text.find(kSystem); at != std::string::npos; at = text.find(kSystem, at + 1)) {
    const size_t begin = at + kSystem.size(), end = text.find_first_of("'\"{}<", begin);
    if (end == begin || end == std::string::npos || text.compare(end, ChatLayout::kEnd.size(), ChatLayout::kEnd) != 0) {
      continue;
    }
    const std::string system = text.substr(begin, end - begin);
    replace_all(text, system, "");
    return system;
  }
  return std::nullopt;
}

std::string hash_of(const std::string& text) {
  Hasher hasher;
  hasher.add_bytes(text.data(), text.size());
  return to_string(hasher.finish());
}

// "chat_template": "...", or [{"name": "default", "template": "..."}, ...].
std::optional<std::string> template_of(const std::string& path) {
  const JsonNode root = JsonNode::parse(read_whole_file(path), path, ErrorCode::kConfig);
  if (!root.has("chat_template")) return std::nullopt;
  const JsonNode node = root.at("chat_template");
  if (!node.is_array()) return node.text();
  for (const JsonNode& named : node.elements()) {
    if (named.at("name").text() == "default") return named.at("template").text();
  }
  node.fail("a template of the name \"default\" is expected");
}

}  // namespace

ChatLayout ChatLayout::from_folder(const std::string& dir) {
  const std::string jinja = dir + "/chat_template.jinja";
  if (std::filesystem::exists(jinja)) return from_template(read_whole_file(jinja), jinja);
  for (const char* name : {"/chat_template.json", "/tokenizer_config.json"}) {
    const std::string path = dir + name;
    if (!std::filesystem::exists(path)) continue;
    if (const std::optional<std::string> text = template_of(path)) return from_template(*text, path);
  }
  throw Error(ErrorCode::kConfig, dir +
                                      ": no chat template, neither chat_template.jinja nor \"chat_template\" in "
                                      "chat_template.json or tokenizer_config.json; conversations need a chat model, "
                                      "any model takes lines of {\"text\": \"...\"}");
}

ChatLayout ChatLayout::from_template(std::string_view text, const std::string& origin) {
  std::string skeleton(text);
  replace_all(skeleton, "\\n", "\n");  // in a string of Jinja both are a line's end
  skeleton.erase(skeleton.find_last_not_of(" \n\r\t") + 1);
  std::optional<std::string> system = take_default_system(skeleton);
  const std::string hash = hash_of(skeleton);
  for (const std::string_view known : kKnownTemplates) {
    if (hash == known) return ChatLayout(std::move(system));
  }
  throw Error(ErrorCode::kConfig,
              origin +
                  ": the chat template is none of those that are built: Qwen2, Qwen2.5, Qwen2.5-VL, "
                  "SmolLM2, plain ChatML. Write the conversations out with transformers' apply_chat_template as "
                  "lines of {\"text\": \"...\"}, or train on one of these templates (hash " +
                  hash + ")");
}

std::vector<ChatLayout::Turn> ChatLayout::turns(const Conversation& conversation) const {
  std::vector<Turn> turns;
  if (default_system_ && conversation.messages.front().role != "system") turns.push_back({"system", *default_system_});
  for (const Message& message : conversation.messages) {
    Turn turn{message.role, ""};
    for (const ContentPart& part : message.parts) turn.text += part.is_image ? kImage : std::string_view(part.text);
    turns.push_back(std::move(turn));
  }
  return turns;
}

}  // namespace attnmux
