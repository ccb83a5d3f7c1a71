#include "models/data/documents.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "attnmux/error.h"
#include "models/io/atomic_file.h"
#include "models/io/json_node.h"
#include "models/io/utf8.h"

namespace attnmux {
namespace {

bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r\n\f\v") == std::string_view::npos; }

void check_utf8(std::string_view text, const std::string& origin, int64_t first_line) {
  const size_t valid = valid_utf8_prefix(text);
  if (valid == text.size()) return;
  const int64_t line = first_line + std::count(text.begin(), text.begin() + static_cast<int64_t>(valid), '\n');
  throw Error(ErrorCode::kBadFile, origin + ":" + std::to_string(line) + ": invalid UTF-8 at byte " +
                                       std::to_string(valid) +
                                       "; convert the text first, e.g. iconv -f LATIN1 -t UTF-8");
}

Document read_text(const std::string& path) {
  Document document{read_whole_file(path), path};
  if (is_blank(document.text)) {
    throw Error(ErrorCode::kBadFile, path + ": the text is empty; give a file with text or remove it from the list");
  }
  check_utf8(document.text, path, 1);
  return document;
}

Document parse_line(std::string_view line, const std::string& origin, const std::string& folder) {
  const JsonNode object = JsonNode::parse(line, origin, ErrorCode::kBadFile);
  if (object.has("messages")) {
    return {.text = "", .origin = origin, .conversation = parse_conversation(line, origin, folder)};
  }
  if (!object.has("text") || !object.at("text").is_string()) {
    throw Error(ErrorCode::kBadFile, origin +
                                         ": expected an object with a string \"text\", e.g. {\"text\": \"...\"}, or "
                                         "with \"messages\"");
  }
  Document document{object.at("text").text(), origin};
  if (is_blank(document.text)) {
    throw Error(ErrorCode::kBadFile, origin + ": \"text\" is empty; remove the line or give it text");
  }
  return document;
}

void read_jsonl(const std::string& path, std::vector<Document>& documents) {
  const std::string contents = read_whole_file(path);
  const std::string folder = std::filesystem::path(path).parent_path().string();
  const size_t before = documents.size();
  int64_t line_number = 0;
  for (size_t begin = 0; begin < contents.size();) {
    const size_t end = std::min(contents.find('\n', begin), contents.size());
    const std::string_view line = std::string_view(contents).substr(begin, end - begin);
    begin = end + 1;
    ++line_number;
    if (is_blank(line)) continue;
    check_utf8(line, path, line_number);
    documents.push_back(parse_line(line, path + ":" + std::to_string(line_number), folder));
  }
  if (documents.size() == before) {
    throw Error(ErrorCode::kBadFile, path + ": no documents; expected a line like {\"text\": \"...\"} for each");
  }
}

}  // namespace

std::vector<Document> read_documents(DataKind kind, const std::vector<std::string>& paths) {
  std::vector<Document> documents;
  for (const std::string& path : paths) {
    if (kind == DataKind::kText) {
      documents.push_back(read_text(path));
    } else {
      read_jsonl(path, documents);
    }
  }
  return documents;
}

TokenizedDocument tokenize_text(const Document& document, const Tokenizer& tokenizer, int64_t eos_id) {
  TokenizedDocument tokens{.ids = tokenizer.encode(document.text, {.add_special_tokens = false})};
  tokens.ids.push_back(eos_id);
  return tokens;
}

int64_t count_tokens(const std::vector<TokenizedDocument>& documents) {
  int64_t count = 0;
  for (const TokenizedDocument& document : documents) count += std::ssize(document.ids);
  return count;
}

}  // namespace attnmux
