// A value inside a JSON file that knows where it stands, so that every complaint names file and key.
//
//   JsonNode root = JsonNode::parse(text, "config.json", ErrorCode::kConfig);
//   int64_t layers = root.at("num_hidden_layers").integer();      // "config.json: the key num_hidden_layers is
//   missing"
//
// Nodes share the parsed document and keep it alive. Immutable, any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "attnmux/error.h"

namespace attnmux {

class JsonNode {
 public:
  // Throws Error(kBadFile) with line and column for text that is not JSON, and for an object that repeats a key.
  // `code` is what complaints about values throw.
  static JsonNode parse(std::string_view text, const std::string& file_name, ErrorCode code);

  const std::string& path() const { return path_; }  // "rope_scaling.factor", "added_tokens[3]"; empty for the document

  // An object that has `key` with a value other than null.
  bool has(const std::string& key) const;
  JsonNode at(const std::string& key) const;
  std::vector<std::pair<std::string, JsonNode>> members() const;  // of an object, sorted by key
  std::vector<JsonNode> elements() const;                         // of an array

  bool is_object() const;
  bool is_array() const;
  bool is_string() const;
  bool is_null() const;

  const std::string& text() const;
  int64_t integer() const;
  double number() const;  // finite
  bool boolean() const;

  // Throws "FILE: PATH is VALUE; WHAT" with the code given to parse().
  [[noreturn]] void fail(const std::string& what) const;

 private:
  struct Origin {
    std::string file_name;
    ErrorCode code;
  };
  JsonNode(std::shared_ptr<const Origin> origin, std::shared_ptr<const void> value, std::string path);

  std::shared_ptr<const Origin> origin_;
  std::shared_ptr<const void> value_;  // the value inside the document; void keeps the JSON library out of headers
  std::string path_;
};

}  // namespace attnmux
