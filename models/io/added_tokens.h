// Tokens that are cut out of a text before BPE sees it: "<|im_end|>" and the like.
//
//   for (const AddedTokens::Piece& piece : added.split_raw(text, /*parse_special=*/true))
//     piece.id ? ids.push_back(*piece.id) : encode(piece.text);
//
// The longest token at the leftmost place wins; tokens that are matched before normalisation go first, as in
// `tokenizers`. Immutable, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "models/io/json_node.h"
#include "models/io/regex.h"

namespace attnmux {

struct AddedToken {
  std::string content;
  int64_t id = 0;
  bool special = false;
  bool normalized = true;    // matched after normalisation
  bool single_word = false;  // only between characters that are no word characters
  bool lstrip = false;       // takes the white space on its left along
  bool rstrip = false;
};

class AddedTokens {
 public:
  // `added_tokens` of a tokenizer.json.
  static AddedTokens from_json(const JsonNode& array);

  struct Piece {
    std::string_view text;
    std::optional<int64_t> id;
  };
  // Tokens that are matched before normalisation, and those that are matched in what normalisation has made of the
  // rest. REQUIRES: `text` is valid UTF-8.
  std::vector<Piece> split_raw(std::string_view text, bool parse_special) const;
  std::vector<Piece> split_normalized(std::string_view text, bool parse_special) const;

  const std::vector<AddedToken>& tokens() const { return tokens_; }

 private:
  // Bytes of token contents as a tree.
  struct Trie {
    struct Node {
      std::unordered_map<char, int32_t> children;
      int32_t token = -1;
    };
    std::vector<Node> nodes{1};
    void add(const std::string& content, int32_t token);
    // The longest token that `text` starts with; -1 for none.
    int32_t longest(std::string_view text) const;
  };

  AddedTokens();
  std::vector<Piece> split(std::string_view text, const Trie& trie, bool parse_special) const;
  bool between_words(std::string_view text, size_t begin, size_t end) const;

  std::vector<AddedToken> tokens_;
  Trie raw_, normalized_;
  Regex space_, word_;
};

}  // namespace attnmux
