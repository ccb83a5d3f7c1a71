// tokenizer.json of a Hugging Face folder: BPE over bytes (Llama 3, Qwen, SmolLM), or over characters with byte
// fallback (Gemma, Mistral, Llama 2), with special tokens.
//
//   Tokenizer tokenizer = Tokenizer::from_folder("models/smollm2");
//   std::vector<int64_t> ids = tokenizer.encode("Hello <|im_end|>", {.add_special_tokens = false});
//   std::string bytes = tokenizer.decode(ids);                              // "Hello <|im_end|>"
//
// For valid UTF-8 the ids equal those of the `tokenizers` package. Bytes that are not UTF-8 are cut out of the text and
// encoded byte by byte, so decode(encode(bytes)) == bytes for any bytes (where no special token strips blanks around
// it, no BOS or EOS is added, and the tokenizer does not change the text first: Qwen's brings it into NFC, Gemma's
// writes blanks as U+2581 and cannot tell the two apart, Mistral's puts one in front). A vocabulary may lack some of
// the 256 bytes; encoding one of them is an error, where `tokenizers` drops it. Immutable but for an internal cache;
// copies share it; any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace attnmux {

struct EncodeOptions {
  bool add_special_tokens = true;  // what the post-processor puts before and after a text (BOS, EOS)
  bool parse_special = true;       // "<|im_end|>" in the text is the special token; false: it is plain text
};

struct DecodeOptions {
  bool skip_special_tokens = false;
};

class Tokenizer {
 public:
  // Reads DIR/tokenizer.json, and bos and eos from DIR/tokenizer_config.json or DIR/special_tokens_map.json if present.
  static Tokenizer from_folder(const std::string& dir);
  // Throws Error(kBadFile) naming file, key, value and what is expected or built; among others for another kind of
  // tokenizer (Unigram, WordPiece).
  static Tokenizer from_file(const std::string& path);
  static Tokenizer from_json(const std::string& text, const std::string& file_name);

  // Throws Error(kInvalidArgument) for a byte that the vocabulary cannot spell.
  std::vector<int64_t> encode(std::string_view bytes, const EncodeOptions& options) const;
  // Throws Error(kInvalidArgument) naming index and id for one that is not in the vocabulary.
  std::string decode(const std::vector<int64_t>& ids, const DecodeOptions& options = {}) const;

  std::optional<int64_t> token_id(std::string_view token) const;  // as spelled in tokenizer.json
  int64_t vocab_size() const;                                     // added tokens included
  std::optional<int64_t> bos_id() const;
  std::optional<int64_t> eos_id() const;

 private:
  struct State;
  explicit Tokenizer(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;  // constant but for its cache of words
};

}  // namespace attnmux
