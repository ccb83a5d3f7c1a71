#include "models/io/pre_tokenizer.h"

#include <string>

#include "attnmux/error.h"
#include "models/io/normalizer.h"
#include "models/io/onig_pattern.h"
#include "models/io/unicode_additions.h"

namespace attnmux {
namespace {

constexpr char kBuilt[] = "built are Sequence, Split, Digits, ByteLevel and Metaspace";

// ByteLevel's own pattern, from GPT-2's encoder.py.
constexpr char kGpt2Pattern[] = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Digits asks Rust's char::is_numeric: the categories N of Unicode 17, whose additions to 16 stand here.
std::string numeric() { return "[\\p{N}" + unicode_additions("N") + "\\x{11DE0}-\\x{11DE9}\\x{16FF4}-\\x{16FF6}]"; }

bool flag(const JsonNode& node, const std::string& key, bool otherwise) {
  return node.has(key) ? node.at(key).boolean() : otherwise;
}

Regex compile(const JsonNode& pattern) {
  if (pattern.has("String")) return Regex(pattern.at("String").text(), Regex::Kind::kLiteral);
  const JsonNode node = pattern.at("Regex");
  try {
    Regex regex(pcre2_from_onig(node.text()), Regex::Kind::kPattern);
    if (regex.matches_empty()) node.fail("a pattern that matches the empty text is not built");
    return regex;
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kUnsupported || error.code() == ErrorCode::kInvalidArgument) node.fail(error.what());
    throw;
  }
}

}  // namespace

PreTokenizer PreTokenizer::from_json(const JsonNode& node) {
  PreTokenizer pre;
  pre.add(node);
  return pre;
}

void PreTokenizer::add(const JsonNode& node) {
  if (byte_level_) node.fail("ByteLevel must come last");
  const std::string& type = node.at("type").text();
  if (type == "Sequence") {
    for (const JsonNode& member : node.at("pretokenizers").elements()) add(member);
  } else if (type == "Split") {
    add_split(node);
  } else if (type == "Digits") {
    const std::string pattern = flag(node, "individual_digits", false) ? numeric() : numeric() + "+";
    splits_.push_back({Regex(pattern, Regex::Kind::kPattern), Behavior::kIsolated, /*invert=*/false});
  } else if (type == "ByteLevel") {
    add_byte_level(node);
  } else if (type == "Metaspace") {
    add_metaspace(node);
  } else {
    node.at("type").fail(kBuilt);
  }
}

void PreTokenizer::add_split(const JsonNode& node) {
  const std::string& name = node.at("behavior").text();
  Behavior behavior = Behavior::kIsolated;
  if (name == "Removed") {
    behavior = Behavior::kRemoved;
  } else if (name == "MergedWithPrevious") {
    behavior = Behavior::kMergedWithPrevious;
  } else if (name == "MergedWithNext") {
    behavior = Behavior::kMergedWithNext;
  } else if (name == "Contiguous") {
    behavior = Behavior::kContiguous;
  } else if (name != "Isolated") {
    node.at("behavior").fail("known are Isolated, Removed, MergedWithPrevious, MergedWithNext and Contiguous");
  }
  splits_.push_back({compile(node.at("pattern")), behavior, flag(node, "invert", false)});
}

void PreTokenizer::add_byte_level(const JsonNode& node) {
  byte_level_ = true;
  add_prefix_space_ = flag(node, "add_prefix_space", true);
  prefix_step_ = splits_.size();
  if (flag(node, "use_regex", true)) {
    splits_.push_back({Regex(pcre2_from_onig(kGpt2Pattern), Regex::Kind::kPattern), Behavior::kIsolated, false});
  }
}

void PreTokenizer::add_metaspace(const JsonNode& node) {
  if (metaspace_ || !splits_.empty()) node.fail("Metaspace must come first");
  const std::string& scheme = node.at("prepend_scheme").text();
  Prepend prepend = Prepend::kNever;
  if (scheme == "first") {
    prepend = Prepend::kFirst;
  } else if (scheme == "always") {
    prepend = Prepend::kAlways;
  } else if (scheme != "never") {
    node.at("prepend_scheme").fail("known are first, always and never");
  }
  metaspace_ = {node.at("replacement").text(), prepend};
  if (metaspace_->replacement.empty()) node.at("replacement").fail("a character is expected");
  if (flag(node, "split", true)) {
    splits_.push_back(
        {Regex(metaspace_->replacement, Regex::Kind::kLiteral), Behavior::kMergedWithNext, /*invert=*/false});
  }
}

void PreTokenizer::for_each_word(std::string_view text, TextPlace place,
                                 const std::function<void(std::string_view)>& take) const {
  if (text.empty()) return;
  if (!metaspace_) return apply(0, text, take);
  const bool prepend = metaspace_->prepend == Prepend::kAlways
                           ? place != TextPlace::kContinues
                           : metaspace_->prepend == Prepend::kFirst && place == TextPlace::kStart;
  std::string words = replace_all(text, " ", metaspace_->replacement);
  if (prepend && !words.starts_with(metaspace_->replacement)) words.insert(0, metaspace_->replacement);
  apply(0, words, take);
}

void PreTokenizer::apply(size_t step, std::string_view text, const std::function<void(std::string_view)>& take) const {
  std::string prefixed;
  if (step == prefix_step_ && add_prefix_space_ && text.front() != ' ') {
    prefixed.append(1, ' ').append(text);
    text = prefixed;
  }
  if (step == splits_.size()) return take(text);
  apply_split(splits_[step], text, [&](std::string_view piece) { apply(step + 1, piece, take); });
}

void PreTokenizer::apply_split(const Split& split, std::string_view text,
                               const std::function<void(std::string_view)>& take) {
  // The text as an alternation of matches and what lies between them; `open` waits for what may be merged to it.
  size_t open_begin = 0, open_end = 0;
  bool open_matched = false;
  const auto flush = [&] {
    if (open_begin < open_end) take(text.substr(open_begin, open_end - open_begin));
    open_begin = open_end;
  };
  const auto chunk = [&](size_t end, bool match) {
    if (end == open_end) return;
    const bool matched = match != split.invert;
    bool join = false;
    switch (split.behavior) {
      case Behavior::kIsolated:
      case Behavior::kRemoved: break;
      case Behavior::kMergedWithPrevious: join = matched && !open_matched; break;
      case Behavior::kMergedWithNext: join = !matched && open_matched; break;
      case Behavior::kContiguous: join = matched == open_matched; break;
    }
    if (!join) flush();
    open_end = end;
    open_matched = matched;
    if (split.behavior == Behavior::kRemoved && matched) open_begin = open_end;
  };
  for (size_t from = 0; from < text.size();) {
    const std::optional<Regex::Match> match = split.regex.find(text, from);
    if (!match) break;
    chunk(match->begin, /*match=*/false);
    chunk(match->end, /*match=*/true);
    from = match->end;
  }
  chunk(text.size(), /*match=*/false);
  flush();
}

}  // namespace attnmux
