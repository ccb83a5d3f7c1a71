// Documents on disk, as text and as tokens.
//
//   std::vector<Document> documents = read_documents(DataKind::kJsonl, {"train.jsonl"});
//   TokenizedDocument tokens = tokenize_text(documents[0], tokenizer, eos_id);       // of a text; of a conversation:
//                                                                                   // conversation_encoder.h
//
// Pure functions, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "models/data/conversation.h"
#include "models/data/document_image.h"
#include "models/io/tokenizer.h"

namespace attnmux {

// kText: a file is one document. kJsonl: each non-blank line is an object whose "text" is one document, or whose
// "messages" are.
enum class DataKind : uint8_t { kText, kJsonl };

struct Document {
  std::string text;    // valid UTF-8, not blank; empty of a conversation
  std::string origin;  // "notes.txt", "train.jsonl:12"; for messages
  std::optional<Conversation> conversation = std::nullopt;
};

struct TokenizedDocument {
  std::vector<int64_t> ids;
  std::vector<bool> is_label = {};         // of each token: something to learn; empty: all are
  std::vector<DocumentImage> images = {};  // in the order of their tokens
  bool divisible = true;                   // may be cut at a sequence's end
};

// Throws Error(kBadFile) naming file and line: missing file, nothing but blanks, invalid UTF-8 (with the byte's
// offset), a line that is not JSON, repeats a key, or has neither a string "text" nor "messages", and what
// parse_conversation() throws.
std::vector<Document> read_documents(DataKind kind, const std::vector<std::string>& paths);

// Tokens of a text, closed by `eos_id`. The tokenizer's own special tokens (BOS, EOS) are not added.
TokenizedDocument tokenize_text(const Document& document, const Tokenizer& tokenizer, int64_t eos_id);

int64_t count_tokens(const std::vector<TokenizedDocument>& documents);

}  // namespace attnmux
