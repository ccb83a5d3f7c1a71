// Patterns of tokenizer.json are written for Oniguruma (Ruby syntax); this turns them into PCRE2's.
//
//   Regex regex(pcre2_from_onig("\\s+(?!\\S)|\\s+"), Regex::Kind::kPattern);
//
// The two agree on most of what such patterns use. Where the same text means something else (\s and U+180E, \w, nested
// classes, {1,3}+, ^ and $, script names, characters newer than PCRE2's tables) it is rewritten, or refused: a pattern
// is never run with another meaning.
#pragma once

#include <string>

namespace attnmux {

// Throws Error(kUnsupported) naming the construct and where it stands.
std::string pcre2_from_onig(const std::string& pattern);

}  // namespace attnmux
