#include "models/io/added_tokens.h"

#include <utility>

#include "models/io/utf8.h"

namespace attnmux {
namespace {

bool flag(const JsonNode& token, const std::string& key, bool otherwise) {
  return token.has(key) ? token.at(key).boolean() : otherwise;
}

// Whether the character at a place is of a class.
bool character_matches(const Regex& character_class, std::string_view text, size_t at) {
  return character_class.find(text.substr(at, utf8_character_size(text.substr(at))), 0).has_value();
}

}  // namespace

void AddedTokens::Trie::add(const std::string& content, int32_t token) {
  int32_t node = 0;
  for (const char byte : content) {
    const auto [child, added] = nodes[node].children.emplace(byte, static_cast<int32_t>(nodes.size()));
    node = child->second;
    if (added) nodes.emplace_back();
  }
  nodes[node].token = token;
}

int32_t AddedTokens::Trie::longest(std::string_view text) const {
  int32_t node = 0, token = -1;
  for (const char byte : text) {
    const auto child = nodes[node].children.find(byte);
    if (child == nodes[node].children.end()) break;
    node = child->second;
    if (nodes[node].token >= 0) token = nodes[node].token;
  }
  return token;
}

// The classes that Rust's regex crate calls \s and \w.
AddedTokens::AddedTokens()
    : space_("\\p{White_Space}", Regex::Kind::kPattern),
      word_("[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]", Regex::Kind::kPattern) {}

AddedTokens AddedTokens::from_json(const JsonNode& array) {
  AddedTokens added;
  for (const JsonNode& node : array.elements()) {
    AddedToken token;
    token.content = node.at("content").text();
    token.id = node.at("id").integer();
    token.special = flag(node, "special", false);
    token.normalized = flag(node, "normalized", !token.special);
    token.single_word = flag(node, "single_word", false);
    token.lstrip = flag(node, "lstrip", false);
    token.rstrip = flag(node, "rstrip", false);
    if (token.content.empty()) node.at("content").fail("a token that is not empty is expected");
    if (token.id < 0) node.at("id").fail("an id that is not negative is expected");
    for (const AddedToken& other : added.tokens_) {
      if (other.id == token.id) node.at("id").fail("the added token \"" + other.content + "\" has the same id");
      if (other.content == token.content) node.at("content").fail("it is added twice");
    }
    (token.normalized ? added.normalized_ : added.raw_).add(token.content, static_cast<int32_t>(added.tokens_.size()));
    added.tokens_.push_back(std::move(token));
  }
  return added;
}

std::vector<AddedTokens::Piece> AddedTokens::split_raw(std::string_view text, bool parse_special) const {
  return split(text, raw_, parse_special);
}

std::vector<AddedTokens::Piece> AddedTokens::split_normalized(std::string_view text, bool parse_special) const {
  return split(text, normalized_, parse_special);
}

std::vector<AddedTokens::Piece> AddedTokens::split(std::string_view text, const Trie& trie, bool parse_special) const {
  std::vector<Piece> pieces;
  size_t done = 0;  // text before it is in pieces
  for (size_t at = 0; at < text.size();) {
    const int32_t index = trie.longest(text.substr(at));
    if (index < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[index];
    size_t begin = at, end = at + token.content.size();
    at = end;
    if (token.special && !parse_special) continue;
    if (token.single_word && !between_words(text, begin, end)) continue;
    while (token.lstrip && begin > done) {
      const size_t before = last_utf8_character(text.substr(0, begin));
      if (before < done || !character_matches(space_, text, before)) break;
      begin = before;
    }
    while (token.rstrip && end < text.size() && character_matches(space_, text, end)) {
      end += utf8_character_size(text.substr(end));
    }
    if (done < begin) pieces.push_back({text.substr(done, begin - done), std::nullopt});
    pieces.push_back({text.substr(begin, end - begin), token.id});
    done = end;
  }
  if (done < text.size()) pieces.push_back({text.substr(done), std::nullopt});
  return pieces;
}

bool AddedTokens::between_words(std::string_view text, size_t begin, size_t end) const {
  const bool word_before = begin > 0 && character_matches(word_, text, last_utf8_character(text.substr(0, begin)));
  const bool word_after = end < text.size() && character_matches(word_, text, end);
  return !word_before && !word_after;
}

}  // namespace attnmux
