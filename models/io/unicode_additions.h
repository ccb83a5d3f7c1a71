// Code points that Unicode 15 to 16 assigned, by general category, for a PCRE2 that is older.
//
//   "[\\p{L}" + unicode_additions("L") + "]"       // every letter of Unicode 16
//
// The patterns of tokenizer.json were run with the newer tables; without these, one in a rare script would be cut
// elsewhere. Harmless where PCRE2 knows them already. Any thread.
#pragma once

#include <string>
#include <string_view>

namespace attnmux {

// Ranges for a character class, "\x{897}-\x{897}...", of "Lu" or of all that begin with "L"; empty for none.
std::string unicode_additions(std::string_view category);

}  // namespace attnmux
