// Documents on disk, as text and as tokens.
//
//   std::vector<Document> documents = read_documents(DataKind::kJsonl, {"train.jsonl"});
//   std::vector<TokenizedDocument> tokens = tokenize_documents(documents, tokenizer, eos_id);
//
// Pure functions, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/io/tokenizer.h"

namespace attnmux {

// kText: a file is one document. kJsonl: each non-blank line is an object whose "text" is one document.
enum class DataKind : uint8_t { kText, kJsonl };

struct Document {
  std::string text;    // valid UTF-8, not blank
  std::string origin;  // "notes.txt", "train.jsonl:12"; for messages
};

using TokenizedDocument = std::vector<int64_t>;

// Throws Error(kBadFile) naming file and line: missing file, nothing but blanks, invalid UTF-8 (with the byte's
// offset), a line that is not JSON or has no string "text".
std::vector<Document> read_documents(DataKind kind, const std::vector<std::string>& paths);

// Tokens of each document, closed by `eos_id`. The tokenizer's own special tokens (BOS, EOS) are not added.
std::vector<TokenizedDocument> tokenize_documents(const std::vector<Document>& documents, const Tokenizer& tokenizer,
                                                  int64_t eos_id);

int64_t count_tokens(const std::vector<TokenizedDocument>& documents);

}  // namespace attnmux
