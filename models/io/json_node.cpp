#include "models/io/json_node.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "attnmux/json_problem.h"

namespace attnmux {
namespace {

using nlohmann::json;

const json& value_of(const std::shared_ptr<const void>& value) { return *static_cast<const json*>(value.get()); }

// What a message shows of a value: containers by their kind, texts cut short.
std::string shown(const json& value) {
  constexpr size_t kMax = 100;
  if (value.is_object()) return "an object";
  if (value.is_array()) return "an array";
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/false, json::error_handler_t::replace);
  if (text.size() > kMax) text = text.substr(0, kMax) + "...";
  return text;
}

}  // namespace

JsonNode::JsonNode(std::shared_ptr<const Origin> origin, std::shared_ptr<const void> value, std::string path)
    : origin_(std::move(origin)), value_(std::move(value)), path_(std::move(path)) {}

JsonNode JsonNode::parse(std::string_view text, const std::string& file_name, ErrorCode code) {
  // The library keeps the last of two equal keys; which one was meant is not for us to guess.
  std::vector<std::set<std::string>> open_objects;
  std::string repeated;
  const auto note_key = [&](int, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start) open_objects.emplace_back();
    if (event == json::parse_event_t::object_end) open_objects.pop_back();
    if (event == json::parse_event_t::key && !open_objects.back().insert(parsed.get_ref<const std::string&>()).second) {
      if (repeated.empty()) repeated = shown(parsed);
    }
    return true;
  };
  json document;
  try {
    document = json::parse(text, note_key);
  } catch (const json::exception& error) {
    throw Error(ErrorCode::kBadFile, file_name + ": is not JSON: " + json_problem(error.what(), text) +
                                         "; correct it there, or fetch the file again");
  }
  if (!repeated.empty()) {
    throw Error(ErrorCode::kBadFile, file_name + ": an object has the key " + repeated + " twice; remove one of them");
  }
  return JsonNode(std::make_shared<const Origin>(Origin{file_name, code}),
                  std::make_shared<const json>(std::move(document)), "");
}

bool JsonNode::has(const std::string& key) const {
  const json& value = value_of(value_);
  if (!value.is_object()) return false;
  const auto found = value.find(key);
  return found != value.end() && !found->is_null();
}

JsonNode JsonNode::at(const std::string& key) const {
  const json& value = value_of(value_);
  if (!value.is_object()) fail("an object is expected");
  const auto found = value.find(key);
  const std::string path = path_.empty() ? key : path_ + "." + key;
  if (found == value.end()) {
    throw Error(origin_->code,
                origin_->file_name + ": the key " + path + " is missing; add it, or take the whole file anew");
  }
  return JsonNode(origin_, std::shared_ptr<const void>(value_, &*found), path);
}

std::vector<std::pair<std::string, JsonNode>> JsonNode::members() const {
  const json& value = value_of(value_);
  if (!value.is_object()) fail("an object is expected");
  std::vector<std::pair<std::string, JsonNode>> members;
  members.reserve(value.size());
  for (const auto& [key, member] : value.items()) {
    members.emplace_back(
        key, JsonNode(origin_, std::shared_ptr<const void>(value_, &member), path_.empty() ? key : path_ + "." + key));
  }
  return members;
}

std::vector<JsonNode> JsonNode::elements() const {
  const json& value = value_of(value_);
  if (!value.is_array()) fail("an array is expected");
  std::vector<JsonNode> elements;
  elements.reserve(value.size());
  for (const json& element : value) {
    elements.push_back(JsonNode(origin_, std::shared_ptr<const void>(value_, &element),
                                path_ + "[" + std::to_string(elements.size()) + "]"));
  }
  return elements;
}

bool JsonNode::is_object() const { return value_of(value_).is_object(); }
bool JsonNode::is_array() const { return value_of(value_).is_array(); }
bool JsonNode::is_string() const { return value_of(value_).is_string(); }
bool JsonNode::is_null() const { return value_of(value_).is_null(); }

const std::string& JsonNode::text() const {
  const json& value = value_of(value_);
  if (!value.is_string()) fail("a text is expected");
  return value.get_ref<const std::string&>();
}

int64_t JsonNode::integer() const {
  const json& value = value_of(value_);
  const bool fits =
      value.is_number_integer() && (!value.is_number_unsigned() || value.get<uint64_t>() <= uint64_t{INT64_MAX});
  if (!fits) fail("an integer is expected");
  return value.get<int64_t>();
}

double JsonNode::number() const {
  const json& value = value_of(value_);
  if (!value.is_number() || !std::isfinite(value.get<double>())) fail("a number is expected");
  return value.get<double>();
}

bool JsonNode::boolean() const {
  const json& value = value_of(value_);
  if (!value.is_boolean()) fail("true or false is expected");
  return value.get<bool>();
}

void JsonNode::fail(const std::string& what) const {
  throw Error(origin_->code, origin_->file_name + ": " + (path_.empty() ? "the document" : path_) + " is " +
                                 shown(value_of(value_)) + "; " + what);
}

}  // namespace attnmux
