// The merging part of a BPE tokenizer: one word to token ids. The word is spelled in bytes (byte-level BPE), or in
// characters, and in bytes where the vocabulary lacks a character (byte fallback, as of SentencePiece).
//
//   BpeModel model = BpeModel::from_json(root.at("model"));
//   model.encode_word(" hello", ids);          // appends
//
// Neighbours are merged by rank, as `tokenizers` does, in O(n log n) by a priority queue. Immutable, any thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "models/io/json_node.h"

namespace attnmux {

class BpeModel {
 public:
  // `model` of a tokenizer.json. Fails through the node for other kinds and for merges outside the vocabulary.
  static BpeModel from_json(const JsonNode& model);

  bool byte_fallback() const { return byte_fallback_; }

  // `word`: raw bytes. Throws Error(kInvalidArgument) when the vocabulary has no token for one of them.
  void encode_word(std::string_view word, std::vector<int64_t>& ids) const;

  std::optional<int64_t> id_of(const std::string& token) const;  // as spelled in tokenizer.json
  // Every token by id, as spelled in tokenizer.json; nothing for an id without token.
  std::vector<std::optional<std::string>> tokens() const;

 private:
  struct Merge {
    int32_t rank;
    int64_t id;  // of the merged token
  };
  void read_vocab(const JsonNode& vocab);
  void read_merges(const JsonNode& merges);
  void read_bytes(const JsonNode& model);
  void read_whole_words();
  std::vector<int64_t> spell(std::string_view word) const;
  const Merge* find_merge(int64_t left, int64_t right) const;

  bool byte_fallback_ = false;
  std::unordered_map<std::string, int64_t> vocab_;
  std::unordered_map<uint64_t, Merge> merges_;  // by pair of ids
  std::array<int64_t, 256> byte_ids_{};         // -1: the vocabulary lacks the byte
  // Whole words that are tokens by themselves; filled where ignore_merges asks for it.
  std::unordered_map<std::string, int64_t> whole_words_;
};

}  // namespace attnmux
