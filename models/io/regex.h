// A compiled PCRE2 pattern on UTF-8 text.
//
//   const Regex digits("\\p{N}+", Regex::Kind::kPattern);
//   if (auto match = digits.find(text, 0)) text.substr(match->begin, match->end - match->begin);
//
// Matching by Unicode properties (UCP), compiled to machine code where the library can. Immutable, any thread.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace attnmux {

class Regex {
 public:
  enum class Kind { kPattern, kLiteral };
  struct Match {
    size_t begin;
    size_t end;
  };

  // Throws Error(kInvalidArgument) with the place of the mistake in the pattern.
  Regex(const std::string& pattern, Kind kind);

  // The first match at or after `from`, which lies between characters. REQUIRES: `text` is valid UTF-8.
  // Throws Error(kInvalidArgument) when the library gives up (match limit), with pattern and place.
  std::optional<Match> find(std::string_view text, size_t from) const;

  // Whether the pattern matches the empty text.
  bool matches_empty() const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
};

}  // namespace attnmux
