// What a tokenizer does to a text before it cuts it into words: `normalizer` of a tokenizer.json.
//
//   Normalizer normalizer = Normalizer::from_json(root.at("normalizer"));
//   normalizer.apply("to be", /*starts=*/true);        // "▁to▁be"
//
// NFC, Prepend, Replace of a fixed text, and a Sequence of them. Immutable, any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "models/io/json_node.h"

namespace attnmux {

class Normalizer {
 public:
  Normalizer() = default;  // changes nothing
  // Fails through the node, naming the kind, for what is not built.
  static Normalizer from_json(const JsonNode& node);

  // `starts`: nothing was cut off in front of the text, so Prepend applies. REQUIRES: `text` is valid UTF-8.
  std::string apply(std::string_view text, bool starts) const;
  bool changes_nothing() const { return steps_.empty(); }

 private:
  enum class Kind { kNfc, kPrepend, kReplace };
  struct Step {
    Kind kind;
    std::string pattern;  // of kReplace
    std::string content;  // what is prepended, or stands instead
  };
  void add(const JsonNode& node);

  std::vector<Step> steps_;
};

// `text` with every `pattern` replaced, from left to right. REQUIRES: `pattern` is not empty.
std::string replace_all(std::string_view text, const std::string& pattern, const std::string& content);

}  // namespace attnmux
