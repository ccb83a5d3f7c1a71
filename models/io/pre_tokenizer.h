// Cutting a text into the words that BPE merges within: `pre_tokenizer` of a tokenizer.json.
//
//   PreTokenizer pre = PreTokenizer::from_json(root.at("pre_tokenizer"));
//   pre.for_each_word("Hello world", [](std::string_view word) { ... });       // "Hello", " world"
//
// A chain of splits, each applied to every piece of the one before as if the piece were a whole text. Byte-level BPE
// has ByteLevel at its end, BPE with byte fallback Metaspace at its beginning, or neither. Immutable, any thread.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/io/json_node.h"
#include "models/io/regex.h"

namespace attnmux {

// Where a piece of text that is cut into words comes from.
enum class TextPlace {
  kStart,     // the text's own start
  kInside,    // behind an added token
  kContinues  // behind a broken byte: nothing may be put between
};

class PreTokenizer {
 public:
  PreTokenizer() = default;  // the whole text is one word
  // Fails through the node, naming the kind, for what is not built.
  static PreTokenizer from_json(const JsonNode& node);

  bool byte_level() const { return byte_level_; }
  // In order. REQUIRES: `text` is valid UTF-8.
  void for_each_word(std::string_view text, TextPlace place, const std::function<void(std::string_view)>& take) const;

 private:
  enum class Behavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };
  struct Split {
    Regex regex;
    Behavior behavior;
    bool invert;  // what lies between matches counts as match
  };
  void add(const JsonNode& node);
  void add_split(const JsonNode& node);
  void add_byte_level(const JsonNode& node);
  void add_metaspace(const JsonNode& node);
  void apply(size_t step, std::string_view text, const std::function<void(std::string_view)>& take) const;
  static void apply_split(const Split& split, std::string_view text, const std::function<void(std::string_view)>& take);

  enum class Prepend { kNever, kFirst, kAlways };
  struct Metaspace {
    std::string replacement;  // of a blank
    Prepend prepend;          // at the text's start, or at every piece's
  };

  std::optional<Metaspace> metaspace_;
  std::vector<Split> splits_;
  size_t prefix_step_ = 0;  // ByteLevel's place among the splits
  bool add_prefix_space_ = false;
  bool byte_level_ = false;
};

}  // namespace attnmux
