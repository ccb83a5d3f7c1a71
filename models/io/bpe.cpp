#include "models/io/bpe.h"

#include <algorithm>
#include <queue>
#include <tuple>

#include "attnmux/error.h"
#include "models/io/byte_symbols.h"
#include "models/io/token_decoder.h"
#include "models/io/utf8.h"

namespace attnmux {
namespace {

constexpr int64_t kMaxHole = 1 << 20;  // ids are dense but for a few reserved ones; a huge id is a mistake

uint64_t pair_key(int64_t left, int64_t right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint64_t>(right);
}

void check_kind(const JsonNode& model) {
  if (model.has("type") && model.at("type").text() != "BPE") {
    model.at("type").fail("this kind of tokenizer is not built; byte-level BPE and BPE with byte fallback are");
  }
  if (model.has("dropout") && model.at("dropout").number() != 0) {
    model.at("dropout").fail("merge dropout is not built; null is");
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (model.has(key) && !model.at(key).text().empty()) model.at(key).fail("this is not built; null is");
  }
}

// "a b" or ["a", "b"].
std::pair<std::string, std::string> read_pair(const JsonNode& merge) {
  if (merge.is_array()) {
    const std::vector<JsonNode> parts = merge.elements();
    if (parts.size() != 2) merge.fail("two tokens are expected");
    return {parts[0].text(), parts[1].text()};
  }
  const std::string& text = merge.text();
  const size_t blank = text.find(' ');
  if (blank == std::string::npos || text.find(' ', blank + 1) != std::string::npos) {
    merge.fail("two tokens with one blank between them are expected");
  }
  return {text.substr(0, blank), text.substr(blank + 1)};
}

}  // namespace

BpeModel BpeModel::from_json(const JsonNode& model) {
  check_kind(model);
  BpeModel bpe;
  bpe.byte_fallback_ = model.has("byte_fallback") && model.at("byte_fallback").boolean();
  bpe.read_vocab(model.at("vocab"));
  bpe.read_merges(model.at("merges"));
  bpe.read_bytes(model);
  if (model.has("ignore_merges") && model.at("ignore_merges").boolean()) bpe.read_whole_words();
  return bpe;
}

void BpeModel::read_whole_words() {
  for (const auto& [token, id] : vocab_) {
    if (byte_fallback_) {
      whole_words_.emplace(token, id);
    } else if (auto bytes = bytes_of_symbols(token)) {
      whole_words_.emplace(std::move(*bytes), id);
    }
  }
}

void BpeModel::read_vocab(const JsonNode& vocab) {
  const auto members = vocab.members();
  const int64_t max_id = static_cast<int64_t>(members.size()) + kMaxHole;
  std::unordered_map<int64_t, std::string> token_of;
  for (const auto& [token, node] : members) {
    const int64_t id = node.integer();
    if (id < 0 || id > max_id) node.fail("an id from 0 to " + std::to_string(max_id) + " is expected");
    const auto [other, added] = token_of.emplace(id, token);
    if (!added) node.fail("the token \"" + other->second + "\" has the same id");
    vocab_.emplace(token, id);
  }
}

void BpeModel::read_merges(const JsonNode& merges) {
  int32_t rank = 0;
  for (const JsonNode& merge : merges.elements()) {
    const auto [left, right] = read_pair(merge);
    const auto id_in_vocab = [&](const std::string& token) {
      const auto found = vocab_.find(token);
      if (found == vocab_.end()) merge.fail("the vocabulary has no token \"" + token + "\"");
      return found->second;
    };
    const int64_t left_id = id_in_vocab(left);  // in order: the first token that is missing is the one named
    const int64_t right_id = id_in_vocab(right);
    const int64_t merged_id = id_in_vocab(left + right);
    // Of equal pairs the last decides, as in `tokenizers`.
    merges_[pair_key(left_id, right_id)] = {rank++, merged_id};
  }
}

void BpeModel::read_bytes(const JsonNode& model) {
  bool complete = true;
  for (unsigned byte = 0; byte < byte_ids_.size(); ++byte) {
    const auto value = static_cast<uint8_t>(byte);
    const std::string name = byte_fallback_ ? byte_token(value) : byte_symbol(value);
    const auto found = vocab_.find(name);
    byte_ids_[byte] = found == vocab_.end() ? -1 : found->second;
    complete = complete && found != vocab_.end();
    if (byte_fallback_ && !complete) {
      model.at("byte_fallback").fail("the vocabulary must have all of <0x00> to <0xFF>, it lacks " + name);
    }
  }
  // With the whole alphabet at hand the unknown token cannot occur.
  if (!complete && model.has("unk_token")) {
    model.at("unk_token")
        .fail("an unknown token is not built for a vocabulary that lacks some of the 256 bytes; null is");
  }
}

const BpeModel::Merge* BpeModel::find_merge(int64_t left, int64_t right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

// The ids that merging begins with.
std::vector<int64_t> BpeModel::spell(std::string_view word) const {
  std::vector<int64_t> ids;
  ids.reserve(word.size());
  for (size_t i = 0; i < word.size();) {
    const size_t character = byte_fallback_ ? utf8_character_size(word.substr(i)) : 0;
    if (character > 0) {
      if (const auto found = vocab_.find(std::string(word.substr(i, character))); found != vocab_.end()) {
        ids.push_back(found->second);
        i += character;
        continue;
      }
    }
    for (const size_t end = i + std::max<size_t>(character, 1); i < end; ++i) {
      const auto byte = static_cast<unsigned char>(word[i]);
      if (byte_ids_[byte] < 0) {
        throw Error(ErrorCode::kInvalidArgument, "the vocabulary has no token for byte " + std::to_string(byte) +
                                                     ", so it cannot spell the text; remove the byte");
      }
      ids.push_back(byte_ids_[byte]);
    }
  }
  return ids;
}

void BpeModel::encode_word(std::string_view word, std::vector<int64_t>& ids) const {
  if (!whole_words_.empty()) {
    if (const auto found = whole_words_.find(std::string(word)); found != whole_words_.end()) {
      ids.push_back(found->second);
      return;
    }
  }
  struct Symbol {
    int64_t id;    // -1: merged into its left neighbour
    int64_t left;  // positions, -1 at the ends
    int64_t right;
  };
  const std::vector<int64_t> spelled = spell(word);
  const auto size = static_cast<int64_t>(spelled.size());
  std::vector<Symbol> symbols(spelled.size());
  for (int64_t i = 0; i < size; ++i) symbols[i] = {spelled[i], i - 1, i + 1 < size ? i + 1 : -1};

  using Candidate = std::tuple<int32_t, int64_t, int64_t>;  // rank, position of the left symbol, merged id
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto push = [&](int64_t left) {
    if (left < 0 || symbols[left].right < 0) return;
    const Merge* merge = find_merge(symbols[left].id, symbols[symbols[left].right].id);
    if (merge != nullptr) queue.emplace(merge->rank, left, merge->id);
  };
  for (int64_t i = 0; i < size; ++i) push(i);

  while (!queue.empty()) {
    const auto [rank, left, id] = queue.top();
    queue.pop();
    const int64_t right = symbols[left].right;
    if (symbols[left].id < 0 || right < 0) continue;
    // The pair may have changed since it was queued. As in `tokenizers`, what counts is what it merges to.
    const Merge* merge = find_merge(symbols[left].id, symbols[right].id);
    if (merge == nullptr || merge->id != id) continue;
    symbols[left].id = id;
    symbols[left].right = symbols[right].right;
    symbols[right].id = -1;
    if (symbols[left].right >= 0) symbols[symbols[left].right].left = left;
    push(symbols[left].left);
    push(left);
  }
  for (const Symbol& symbol : symbols) {
    if (symbol.id >= 0) ids.push_back(symbol.id);
  }
}

std::optional<int64_t> BpeModel::id_of(const std::string& token) const {
  const auto found = vocab_.find(token);
  if (found == vocab_.end()) return std::nullopt;
  return found->second;
}

std::vector<std::optional<std::string>> BpeModel::tokens() const {
  int64_t count = 0;
  for (const auto& [token, id] : vocab_) count = std::max(count, id + 1);
  std::vector<std::optional<std::string>> tokens(static_cast<size_t>(count));
  for (const auto& [token, id] : vocab_) tokens[id] = token;
  return tokens;
}

}  // namespace attnmux
