#include "models/data/conversation.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "models/io/json_node.h"

namespace attnmux {
namespace {

// What is not read must not be dropped in silence: tool calls, thoughts, weights.
void check_keys(const JsonNode& object, const std::vector<std::string>& known) {
  for (const auto& [key, value] : object.members()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    std::string allowed;
    for (const std::string& name : known) allowed += (allowed.empty() ? "" : ", ") + name;
    value.fail("this key is not read; allowed beside it are " + allowed);
  }
}

ContentPart parse_part(const JsonNode& part) {
  const JsonNode type = part.at("type");
  if (type.text() == "text") {
    check_keys(part, {"type", "text"});
    return {.is_image = false, .text = part.at("text").text()};
  }
  if (type.text() != "image") type.fail("allowed are \"text\" and \"image\"");
  check_keys(part, {"type"});  // the path stands in "images"
  return {.is_image = true};
}

Message parse_message(const JsonNode& node) {
  check_keys(node, {"role", "content"});
  const JsonNode role = node.at("role"), content = node.at("content");
  if (role.text() != "system" && role.text() != "user" && role.text() != "assistant") {
    role.fail("allowed are \"system\", \"user\" and \"assistant\"");
  }
  Message message{.role = role.text(), .parts = {}};
  if (content.is_string()) {
    message.parts.push_back({.is_image = false, .text = content.text()});
    return message;
  }
  if (!content.is_array()) content.fail("a text or a list of parts is expected");
  for (const JsonNode& part : content.elements()) message.parts.push_back(parse_part(part));
  return message;
}

}  // namespace

Conversation parse_conversation(std::string_view json, const std::string& origin, const std::string& folder) {
  const JsonNode root = JsonNode::parse(json, origin, ErrorCode::kBadFile);
  if (root.has("text")) root.at("text").fail("a line has either \"text\" or \"messages\"");
  Conversation conversation;
  for (const JsonNode& message : root.at("messages").elements()) {
    conversation.messages.push_back(parse_message(message));
  }
  if (conversation.messages.empty()) root.at("messages").fail("at least one message is expected");
  if (!root.has("images")) return conversation;
  for (const JsonNode& image : root.at("images").elements()) {
    if (image.text().empty()) image.fail("the path of an image is expected");
    conversation.images.push_back((std::filesystem::path(folder) / image.text()).lexically_normal().string());
  }
  return conversation;
}

}  // namespace attnmux
