#include "json_reader.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "attnmux/error.h"
#include "attnmux/json_problem.h"
#include "attnmux/spelling.h"

namespace attnmux {

nlohmann::json parse_json(std::string_view text) {
  constexpr int kDeepest = 8;
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const auto watch = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    if (depth > kDeepest) throw Error(ErrorCode::kConfig, "nested deeper than " + std::to_string(kDeepest) + " levels");
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(parsed.get<std::string>()).second) {
      throw Error(ErrorCode::kConfig, "key \"" + parsed.get<std::string>() + "\" appears twice in one object");
    }
    return true;
  };
  try {
    return nlohmann::json::parse(text, watch);
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorCode::kConfig, "not JSON: " + json_problem(error.what(), text) + "; correct it there");
  }
}

std::string JsonReader::found() const {
  if (value_.is_number_float()) return "a number with a fraction, an exponent or more digits than 64 bits hold";
  if (value_.is_null()) return "null";
  return value_.is_object() || value_.is_array() ? std::string("a") + (value_.is_array() ? " list" : "n object")
                                                 : std::string("a ") + value_.type_name();
}

void JsonReader::refuse(const std::string& complaint) const {
  throw Error(ErrorCode::kConfig, (place_.empty() ? "the document" : place_) + " " + complaint);
}

void JsonReader::check_keys(const std::vector<std::string>& keys, const std::vector<std::string>& optional) const {
  if (!value_.is_object()) refuse("is " + found() + ", not an object");
  std::vector<std::string> known = keys;
  known.insert(known.end(), optional.begin(), optional.end());
  for (const auto& [key, value] : value_.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) refuse("has an " + unknown_word("key", key, known));
  }
  for (const std::string& key : keys) {
    if (!value_.contains(key)) refuse("has no key \"" + key + "\"");
  }
}

bool JsonReader::has(const std::string& key) const { return value_.contains(key); }

JsonReader JsonReader::at(const std::string& key) const {
  return JsonReader(value_.at(key), place_.empty() ? key : place_ + "." + key);
}

size_t JsonReader::size() const {
  if (!value_.is_array()) refuse("is " + found() + ", not a list");
  return value_.size();
}

JsonReader JsonReader::at(size_t index) const {
  return JsonReader(value_.at(index), place_ + "[" + std::to_string(index) + "]");
}

int64_t JsonReader::integer() const {
  if (!value_.is_number_integer()) refuse("is " + found() + ", not an integer");
  constexpr auto kLargest = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  if (value_.is_number_unsigned() && value_.get<uint64_t>() > kLargest) {
    refuse("= " + std::to_string(value_.get<uint64_t>()) + " is above 9223372036854775807, the largest integer");
  }
  return value_.get<int64_t>();
}

double JsonReader::number() const {
  if (!value_.is_number()) refuse("is " + found() + ", not a number");
  return value_.get<double>();
}

std::vector<int64_t> JsonReader::integers() const {
  std::vector<int64_t> values(size());
  for (size_t i = 0; i < values.size(); ++i) values[i] = at(i).integer();
  return values;
}

std::string JsonReader::string() const {
  if (!value_.is_string()) refuse("is " + found() + ", not a string");
  return value_.get<std::string>();
}

}  // namespace attnmux
