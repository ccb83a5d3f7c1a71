#include "models/io/tokenizer.h"

#include <filesystem>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "attnmux/error.h"
#include "models/io/added_tokens.h"
#include "models/io/atomic_file.h"
#include "models/io/bpe.h"
#include "models/io/json_node.h"
#include "models/io/normalizer.h"
#include "models/io/pre_tokenizer.h"
#include "models/io/token_decoder.h"
#include "models/io/utf8.h"

namespace attnmux {
namespace {

// Ids of words seen before. Words repeat so often that merging is rare.
class WordCache {
 public:
  static constexpr size_t kMaxWordBytes = 64;
  static constexpr size_t kMaxWords = 1 << 16;

  bool append(std::string_view word, std::vector<int64_t>& ids) {
    if (word.size() > kMaxWordBytes) return false;
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = words_.find(std::string(word));
    if (found == words_.end()) return false;
    ids.insert(ids.end(), found->second.begin(), found->second.end());
    return true;
  }

  void put(std::string_view word, std::vector<int64_t> ids) {
    if (word.size() > kMaxWordBytes) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (words_.size() >= kMaxWords) words_.clear();
    words_.emplace(word, std::move(ids));
  }

 private:
  std::mutex mutex_;
  std::unordered_map<std::string, std::vector<int64_t>> words_;
};

// Ids that the post-processor puts around a text.
struct Template {
  std::vector<int64_t> before;
  std::vector<int64_t> after;
};

void read_template(const JsonNode& node, Template& around) {
  bool seen_text = false;
  for (const JsonNode& item : node.at("single").elements()) {
    if (item.has("Sequence")) {
      if (seen_text) item.fail("the text is expected once");
      seen_text = true;
      continue;
    }
    const std::string& name = item.at("SpecialToken").at("id").text();
    for (const JsonNode& id : node.at("special_tokens").at(name).at("ids").elements()) {
      (seen_text ? around.after : around.before).push_back(id.integer());
    }
  }
  if (!seen_text) node.at("single").fail("the text, {\"Sequence\": ...}, is expected once");
}

void read_post_processor(const JsonNode& node, Template& around) {
  const std::string& type = node.at("type").text();
  if (type == "Sequence") {
    for (const JsonNode& member : node.at("processors").elements()) read_post_processor(member, around);
  } else if (type == "TemplateProcessing") {
    if (!around.before.empty() || !around.after.empty()) node.fail("a second template is not built");
    read_template(node, around);
  } else if (type != "ByteLevel") {  // ByteLevel concerns offsets only
    node.at("type").fail("built are TemplateProcessing, ByteLevel and a Sequence of them");
  }
}

// Bytes are spelled in ByteLevel's alphabet everywhere, or nowhere.
void check_alphabet(const JsonNode& root, const BpeModel& bpe, const PreTokenizer& words, const TokenDecoder& decoder) {
  if (bpe.byte_fallback() && words.byte_level()) {
    root.at("pre_tokenizer").fail("ByteLevel is not expected beside model.byte_fallback");
  }
  if (!bpe.byte_fallback() && !words.byte_level()) {
    root.at("pre_tokenizer").fail("without ByteLevel or model.byte_fallback it cannot spell every text");
  }
  if (bpe.byte_fallback() == decoder.byte_level()) {
    root.at("decoder").fail(bpe.byte_fallback() ? "a Sequence with ByteFallback is expected beside model.byte_fallback"
                                                : "ByteLevel is expected, as in pre_tokenizer");
  }
}

}  // namespace

struct Tokenizer::State {
  std::string file_name;
  BpeModel bpe;
  AddedTokens added;
  PreTokenizer pre_tokenizer;
  Normalizer normalizer;
  TokenDecoder decoder;
  Template around;
  std::vector<std::optional<std::string>> bytes;  // of every token, by id
  std::vector<bool> special;                      // by id
  std::unordered_map<std::string, int64_t> added_ids;
  std::optional<int64_t> bos, eos;
  WordCache cache;

  State(const JsonNode& root, std::string name);
  void index_added_tokens(const JsonNode& array);
  void check_template(const JsonNode& root) const;
  void encode_valid(std::string_view text, TextPlace place, bool parse_special, std::vector<int64_t>& ids);
  void encode_word(std::string_view word, std::vector<int64_t>& ids);
  std::optional<int64_t> find(const std::string& token) const;
  std::optional<int64_t> read_special(const std::string& dir, const std::string& key) const;
};

Tokenizer::State::State(const JsonNode& root, std::string name)
    : file_name(std::move(name)),
      bpe(BpeModel::from_json(root.at("model"))),
      added(AddedTokens::from_json(root.at("added_tokens"))) {
  // truncation and padding are settings of a call, which transformers resets; they are no part of the mapping.
  if (root.has("normalizer")) normalizer = Normalizer::from_json(root.at("normalizer"));
  if (root.has("pre_tokenizer")) pre_tokenizer = PreTokenizer::from_json(root.at("pre_tokenizer"));
  if (root.has("decoder")) decoder = TokenDecoder::from_json(root.at("decoder"));
  check_alphabet(root, bpe, pre_tokenizer, decoder);
  bytes = bpe.tokens();
  for (std::optional<std::string>& token : bytes) {
    if (token) token = decoder.bytes_of(*token);
  }
  index_added_tokens(root.at("added_tokens"));
  if (root.has("post_processor")) read_post_processor(root.at("post_processor"), around);
  check_template(root);
}

void Tokenizer::State::index_added_tokens(const JsonNode& array) {
  constexpr int64_t kMaxHole = 1 << 20;  // as in the vocabulary
  for (size_t i = 0; i < added.tokens().size(); ++i) {
    const AddedToken& token = added.tokens()[i];
    const auto refuse = [&](const std::string& what) { array.elements()[i].at("id").fail(what); };
    const std::optional<int64_t> in_vocab = bpe.id_of(token.content);
    if (in_vocab && *in_vocab != token.id) {
      refuse("the vocabulary gives \"" + token.content + "\" the id " + std::to_string(*in_vocab));
    }
    const auto size = static_cast<int64_t>(bytes.size());
    if (!in_vocab && token.id < size && bytes[token.id]) refuse("the vocabulary has another token with this id");
    if (token.id >= size + kMaxHole) refuse("it lies far beyond the vocabulary's " + std::to_string(size) + " ids");
    if (token.id >= size) bytes.resize(token.id + 1);
    if (token.normalized && normalizer.apply(token.content, /*starts=*/true) != token.content) {
      refuse("the normalizer changes its content; it cannot be found behind it");
    }
    bytes[token.id] = decoder.byte_level() ? token.content : decoder.bytes_of(token.content);
    added_ids[token.content] = token.id;
  }
  special.resize(bytes.size());
  for (const AddedToken& token : added.tokens()) special[token.id] = token.special;
}

void Tokenizer::State::check_template(const JsonNode& root) const {
  for (const auto* ids : {&around.before, &around.after}) {
    for (const int64_t id : *ids) {
      if (id < 0 || id >= static_cast<int64_t>(bytes.size()) || !bytes[id]) {
        root.at("post_processor").fail("it adds the id " + std::to_string(id) + ", which no token has");
      }
    }
  }
}

void Tokenizer::State::encode_word(std::string_view word, std::vector<int64_t>& ids) {
  if (cache.append(word, ids)) return;
  std::vector<int64_t> fresh;
  bpe.encode_word(word, fresh);
  ids.insert(ids.end(), fresh.begin(), fresh.end());
  cache.put(word, std::move(fresh));
}

void Tokenizer::State::encode_valid(std::string_view text, TextPlace place, bool parse_special,
                                    std::vector<int64_t>& ids) {
  const auto encode_plain = [&](std::string_view plain, TextPlace place_of_plain) {
    for (const AddedTokens::Piece& piece : added.split_normalized(plain, parse_special)) {
      if (piece.id) {
        ids.push_back(*piece.id);
      } else {
        const TextPlace here = piece.text.data() == plain.data() ? place_of_plain : TextPlace::kInside;
        pre_tokenizer.for_each_word(piece.text, here, [&](std::string_view word) { encode_word(word, ids); });
      }
    }
  };
  for (const AddedTokens::Piece& piece : added.split_raw(text, parse_special)) {
    const TextPlace here = piece.text.data() == text.data() ? place : TextPlace::kInside;
    if (piece.id) {
      ids.push_back(*piece.id);
    } else if (normalizer.changes_nothing()) {
      encode_plain(piece.text, here);
    } else {
      encode_plain(normalizer.apply(piece.text, /*starts=*/here != TextPlace::kContinues), here);
    }
  }
}

std::optional<int64_t> Tokenizer::State::find(const std::string& token) const {
  const auto found = added_ids.find(token);
  return found == added_ids.end() ? bpe.id_of(token) : found->second;
}

// "bos_token": "<s>", or {"content": "<s>", ...}.
std::optional<int64_t> Tokenizer::State::read_special(const std::string& dir, const std::string& key) const {
  for (const char* file : {"tokenizer_config.json", "special_tokens_map.json"}) {
    const std::string path = dir + "/" + file;
    if (!std::filesystem::exists(path)) continue;
    const JsonNode root = JsonNode::parse(read_whole_file(path), path, ErrorCode::kBadFile);
    if (!root.has(key)) continue;
    const JsonNode node = root.at(key).is_object() ? root.at(key).at("content") : root.at(key);
    const std::optional<int64_t> id = find(node.text());
    if (!id) node.fail("tokenizer.json has no such token");
    return id;
  }
  return std::nullopt;
}

Tokenizer::Tokenizer(std::shared_ptr<State> state) : state_(std::move(state)) {}

Tokenizer Tokenizer::from_json(const std::string& text, const std::string& file_name) {
  const JsonNode root = JsonNode::parse(text, file_name, ErrorCode::kBadFile);
  return Tokenizer(std::make_shared<State>(root, file_name));
}

Tokenizer Tokenizer::from_file(const std::string& path) { return from_json(read_whole_file(path), path); }

Tokenizer Tokenizer::from_folder(const std::string& dir) {
  Tokenizer tokenizer = from_file(dir + "/tokenizer.json");
  tokenizer.state_->bos = tokenizer.state_->read_special(dir, "bos_token");
  tokenizer.state_->eos = tokenizer.state_->read_special(dir, "eos_token");
  return tokenizer;
}

std::vector<int64_t> Tokenizer::encode(std::string_view bytes, const EncodeOptions& options) const {
  std::vector<int64_t> ids;
  if (options.add_special_tokens) ids = state_->around.before;
  for (TextPlace place = TextPlace::kStart; !bytes.empty(); place = TextPlace::kContinues) {
    const size_t valid = valid_utf8_prefix(bytes);
    if (valid > 0) state_->encode_valid(bytes.substr(0, valid), place, options.parse_special, ids);
    bytes.remove_prefix(valid);
    if (bytes.empty()) break;
    state_->encode_word(bytes.substr(0, 1), ids);  // a byte that starts no character is a word of its own
    bytes.remove_prefix(1);
  }
  if (options.add_special_tokens) ids.insert(ids.end(), state_->around.after.begin(), state_->around.after.end());
  return ids;
}

std::string Tokenizer::decode(const std::vector<int64_t>& ids, const DecodeOptions& options) const {
  std::string bytes;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocab_size() || !state_->bytes[ids[i]]) {
      throw Error(ErrorCode::kInvalidArgument, "ids[" + std::to_string(i) + "] = " + std::to_string(ids[i]) +
                                                   " is no token of " + state_->file_name +
                                                   ", whose ids go from 0 to " + std::to_string(vocab_size() - 1));
    }
    if (options.skip_special_tokens && state_->special[ids[i]]) continue;
    bytes += *state_->bytes[ids[i]];
  }
  state_->decoder.strip(bytes);
  return bytes;
}

std::optional<int64_t> Tokenizer::token_id(std::string_view token) const { return state_->find(std::string(token)); }
int64_t Tokenizer::vocab_size() const { return static_cast<int64_t>(state_->bytes.size()); }
std::optional<int64_t> Tokenizer::bos_id() const { return state_->bos; }
std::optional<int64_t> Tokenizer::eos_id() const { return state_->eos; }

}  // namespace attnmux
