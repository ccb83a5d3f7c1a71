#include "attnmux/spelling.h"

#include <algorithm>

namespace attnmux {
namespace {

char fold(char c) {
  if (c == '_') return '-';
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

// Optimal string alignment distance (Damerau-Levenshtein without repeated edits of one substring), three rows of it.
size_t edits(std::string_view a, std::string_view b) {
  std::vector<size_t> before_last(b.size() + 1);
  std::vector<size_t> last(b.size() + 1);
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const bool same = fold(a[i - 1]) == fold(b[j - 1]);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (same ? 0 : 1)});
      const bool swapped = i > 1 && j > 1 && fold(a[i - 1]) == fold(b[j - 2]) && fold(a[i - 2]) == fold(b[j - 1]);
      if (swapped) row[j] = std::min(row[j], before_last[j - 2] + 1);
    }
    std::swap(before_last, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

}  // namespace

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  // Nobody misspells a name of this length; the table of a hostile one would take long.
  constexpr size_t kLongestWord = 256;
  if (word.size() > kLongestWord) return {};
  std::string best;
  size_t best_edits = 0;
  for (const std::string& candidate : candidates) {
    if (candidate.size() > kLongestWord) continue;
    const size_t distance = edits(word, candidate);
    if (distance > std::max<size_t>(1, std::max(word.size(), candidate.size()) / 3)) continue;
    if (distance >= std::min(word.size(), candidate.size())) continue;  // nothing in common
    if (best.empty() || distance < best_edits) {
      best = candidate;
      best_edits = distance;
    }
  }
  return best;
}

std::string unknown_word(std::string_view what, std::string_view word, const std::vector<std::string>& candidates) {
  std::string text = "unknown " + std::string(what) + " \"" + std::string(word) + "\"";
  const std::string near = nearest(word, candidates);
  text += near.empty() ? "." : "; did you mean \"" + near + "\"?";
  text += " Known: ";
  for (size_t i = 0; i < candidates.size(); ++i) text += (i > 0 ? ", " : "") + candidates[i];
  return text;
}

}  // namespace attnmux
