// "Did you mean": the known word that is nearest to a misspelt one.
//
//   nearest("windw", {"full", "causal", "window"});  // "window"
//   nearest("zebra", {"full", "causal", "window"});  // "": nothing is close
//   unknown_word("mask", "windw", {"full", "causal", "window"});
//       // unknown mask "windw"; did you mean "window"? Known: full, causal, window
//
// Called wherever a user's key, flag, mask or backend name is not known. Pure functions, any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "attnmux/export.h"

namespace attnmux {

// The candidate with the fewest edits (insert, delete, replace, swap of neighbours; case and '-' against '_' are free),
// the first of equals. Empty where even that one differs in more than a third of its letters.
ATTNMUX_API std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

// The sentence around it. `what` names the kind of word, e.g. "key" or "mask".
ATTNMUX_API std::string unknown_word(std::string_view what, std::string_view word,
                                     const std::vector<std::string>& candidates);

}  // namespace attnmux
