#include "models/io/onig_pattern.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>

#include "attnmux/error.h"
#include "models/io/unicode_additions.h"

namespace attnmux {
namespace {

constexpr std::array<std::string_view, 37> kGeneralCategories = {
    "C",  "Cc", "Cf", "Cn", "Co", "Cs", "L",  "Ll", "Lm", "Lo", "Lt", "Lu", "M",  "Mc", "Me", "Mn", "N",  "Nd", "Nl",
    "No", "P",  "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S",  "Sc", "Sk", "Sm", "So", "Z",  "Zl", "Zp", "Zs"};

class Translator {
 public:
  explicit Translator(const std::string& pattern) : pattern_(pattern) {}

  std::string run() {
    while (i_ < pattern_.size()) {
      if (pattern_[i_] == '\\') {
        escape();
      } else if (in_class_) {
        class_member();
      } else {
        outside();
      }
    }
    return out_;
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(ErrorCode::kUnsupported, "pattern \"" + pattern_ + "\", at byte " + std::to_string(i_) + ": " + what);
  }
  bool follows(std::string_view text) const { return pattern_.compare(i_, text.size(), text) == 0; }
  void copy(size_t count) {
    out_.append(pattern_, i_, count);
    i_ += count;
  }

  void escape() {
    if (i_ + 1 >= pattern_.size()) refuse("it ends in a backslash");
    const char kind = pattern_[i_ + 1];
    switch (kind) {
      case 's': replace("\\p{White_Space}"); return;
      case 'S': replace("\\P{White_Space}"); return;
      case 'd': category("Nd", /*negated=*/false, 2); return;
      case 'D': category("Nd", /*negated=*/true, 2); return;
      case 'v': replace("\\x0B"); return;
      case 'p':
      case 'P': property(); return;
      case 'u': code_point(); return;
      case 'r':
      case 'n':
      case 't':
      case 'f': copy(2); return;
      default: break;
    }
    if (static_cast<unsigned char>(kind) >= 0x80 || std::isalnum(static_cast<unsigned char>(kind))) {
      refuse(std::string("\\") + kind + " is not built; \\s \\S \\d \\D \\p{} \\P{} \\r \\n \\t \\f \\v \\uHHHH are");
    }
    copy(2);
  }

  void replace(std::string_view text) {
    out_ += text;
    i_ += 2;
  }

  void property() {
    const size_t close = pattern_.find('}', i_);
    if (i_ + 2 >= pattern_.size() || pattern_[i_ + 2] != '{' || close == std::string::npos) {
      refuse("\\p wants a property in braces");
    }
    const bool inverted = pattern_[i_ + 3] == '^';
    const size_t begin = i_ + (inverted ? 4 : 3);
    const std::string name = pattern_.substr(begin, close - begin);
    const bool negated = inverted != (pattern_[i_ + 1] == 'P');
    const size_t size = close + 1 - i_;
    if (std::find(kGeneralCategories.begin(), kGeneralCategories.end(), name) != kGeneralCategories.end()) {
      return category(name, negated, size);
    }
    // PCRE2's bare script names mean script extensions, a larger set.
    out_ += (negated ? "\\P{sc:" : "\\p{sc:") + name + "}";
    i_ += size;
  }

  void category(const std::string& name, bool negated, size_t size) {
    const std::string additions = unicode_additions(name);
    const std::string property = "\\p{" + name + "}" + additions;
    if (in_class_) {
      if (negated && !additions.empty()) refuse("a negated property inside a class is not built");
      out_ += negated ? "\\P{" + name + "}" : property;
    } else {
      out_ += (negated ? "[^" : "[") + property + "]";
    }
    i_ += size;
  }

  void code_point() {
    const std::string digits = pattern_.substr(i_ + 2, 4);
    if (digits.size() != 4 || !std::all_of(digits.begin(), digits.end(),
                                           [](char c) { return std::isxdigit(static_cast<unsigned char>(c)); })) {
      refuse("\\u wants four hexadecimal digits");
    }
    out_ += "\\x{" + digits + "}";
    i_ += 6;
  }

  void class_member() {
    if (pattern_[i_] == '[') refuse("a class inside a class (or a POSIX bracket) is not built; write one class");
    if (follows("&&")) refuse("intersections of classes are not built");
    if (pattern_[i_] == ']') in_class_ = false;
    copy(1);
  }

  void outside() {
    switch (pattern_[i_]) {
      case '[':
        in_class_ = true;
        copy(follows("[^") ? 2 : 1);
        if (follows("]")) refuse("an empty class");
        return;
      case '(': group(); return;
      case '{': repeat(); return;
      case '^':
      case '$': refuse("anchors are not built"); return;
      default: copy(1);
    }
  }

  void group() {
    if (follows("(*")) refuse("(* is not built");
    if (!follows("(?")) return copy(1);
    for (const std::string_view known : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:"}) {
      if (follows(known)) return copy(known.size());
    }
    refuse("this kind of group is not built; (?: (?= (?! (?<= (?<! (?> and (?i: are");
  }

  void repeat() {
    const size_t close = pattern_.find('}', i_);
    if (close == std::string::npos || i_ + 1 == close || !std::isdigit(static_cast<unsigned char>(pattern_[i_ + 1]))) {
      refuse("{ wants a count as in {2}, {2,} or {1,3}; write \\{ for the character");
    }
    // Ruby repeats the repetition, PCRE2 makes it possessive or lazy.
    if (close + 1 < pattern_.size() && (pattern_[close + 1] == '+' || pattern_[close + 1] == '?')) {
      refuse("a + or ? after {} is not built");
    }
    copy(close + 1 - i_);
  }

  const std::string& pattern_;
  std::string out_;
  size_t i_ = 0;
  bool in_class_ = false;
};

}  // namespace

std::string pcre2_from_onig(const std::string& pattern) { return Translator(pattern).run(); }

}  // namespace attnmux
