// What the JSON library says of a text that is not JSON, made fit for our messages: without the library's own tag, and
// without the number of the line where the text has one line alone.
//
//   catch (const nlohmann::json::exception& error) {
//     throw Error(ErrorCode::kBadFile, "notes.json: not JSON: " + json_problem(error.what(), text));
//   }                                                  // notes.json: not JSON: parse error at line 2, column 5: ...
//
// Pure function, any thread.
#pragma once

#include <string>
#include <string_view>

namespace attnmux {

// `what`: "[json.exception.parse_error.101] parse error at line 1, column 2: ...", of reading `text`.
inline std::string json_problem(std::string_view what, std::string_view text) {
  constexpr std::string_view kFirstLine = "line 1, ";
  const size_t tag = what.find("] ");
  std::string problem(tag == std::string_view::npos ? what : what.substr(tag + 2));
  if (text.find('\n') != std::string_view::npos) return problem;
  // A line of a .jsonl file is read alone: its number in the file stands before it.
  const size_t line = problem.find(kFirstLine);
  return line == std::string::npos ? problem : problem.erase(line, kFirstLine.size());
}

}  // namespace attnmux
