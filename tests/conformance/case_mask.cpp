#include "conformance/case_mask.h"

#include <algorithm>
#include <charconv>
#include <numeric>
#include <vector>

#include "attnmux/error.h"
#include "attnmux/mask_builders.h"
#include "attnmux/spelling.h"
#include "conformance/random.h"

namespace attnmux::conformance {
namespace {

using Lengths = std::vector<int64_t>;
using Allowed = std::function<bool(int64_t, int64_t)>;

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

[[noreturn]] void fail(const std::string& text, const std::string& what) {
  throw Error(ErrorCode::kUsage, "mask \"" + text + "\": " + what);
}

int64_t number(const std::string& text, const std::string& part) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
  if (error != std::errc() || end != part.data() + part.size() || value < -1 || value > (1 << 20)) {
    fail(text, "\"" + part + "\" is not a length");
  }
  return value;
}

// The text behind "kind:", cut at ':'.
struct Text {
  explicit Text(const std::string& whole) : whole(whole), parts(split(whole, ':')) {}
  const std::string& kind() const { return parts[0]; }
  int64_t argument(size_t i) const { return number(whole, parts.at(i)); }
  void takes(size_t low, size_t high) const {
    if (parts.size() < low + 1 || parts.size() > high + 1) fail(whole, "a wrong number of ':' behind " + parts[0]);
  }
  // "a+b+c" in argument i.
  Lengths lengths(size_t i) const {
    Lengths result;
    for (const std::string& part : split(parts.at(i), '+')) {
      result.push_back(number(whole, part));
      if (result.back() < 0) fail(whole, "a negative length");
    }
    return result;
  }
  // "axb+cxd" in argument i.
  std::vector<std::pair<int64_t, int64_t>> pairs(size_t i, char between) const {
    std::vector<std::pair<int64_t, int64_t>> result;
    for (const std::string& part : split(parts.at(i), '+')) {
      const std::vector<std::string> two = split(part, between);
      if (two.size() != 2) fail(whole, "\"" + part + "\" is not A" + between + "B");
      result.emplace_back(number(whole, two[0]), number(whole, two[1]));
      if (result.back().first < 0 || result.back().second < 0) fail(whole, "a negative length");
    }
    return result;
  }

  std::string whole;
  std::vector<std::string> parts;
};

int64_t sum(const Lengths& lengths) { return std::accumulate(lengths.begin(), lengths.end(), int64_t{0}); }

// Where a token lies in packed documents.
struct Place {
  size_t document;
  int64_t at;  // inside the document
};
Place place(const Lengths& lengths, int64_t token) {
  size_t document = 0;
  while (token >= lengths[document]) token -= lengths[document++];
  return {document, token};
}

// A slice's pairs, in the words of mask.h: the right edge follows the diagonal that ends bottom-right, the left edge
// the one that starts top-left.
bool in_slice(const AttnSlice& s, int64_t q, int64_t k) {
  if (q < s.q.begin || q >= s.q.end || k < s.k.begin || k >= s.k.end) return false;
  const bool right_of_left_edge = k - s.k.begin >= q - s.q.begin;
  const bool left_of_right_edge = s.k.end - 1 - k >= s.q.end - 1 - q;
  switch (s.type) {
    case MaskType::kFull: return true;
    case MaskType::kCausal: return left_of_right_edge;
    case MaskType::kInvCausal: return right_of_left_edge;
    case MaskType::kBiCausal: return right_of_left_edge && left_of_right_edge;
  }
  return false;
}

CaseMask from_slices(std::vector<AttnSlice> slices, const Case& c) {
  return {AttnMaskSpec(slices, c.sq, c.sk), [slices](int64_t q, int64_t k) {
            return std::any_of(slices.begin(), slices.end(), [&](const AttnSlice& s) { return in_slice(s, q, k); });
          }};
}

CaseMask one_slice(MaskType type, const Case& c) {
  return from_slices({{.q = {0, c.sq}, .k = {0, c.sk}, .type = type}}, c);
}

// Slices of every type; with `holes` every third row is left out.
CaseMask random_union(const Case& c, bool holes) {
  Random random(c.seed * 2 + (holes ? 1 : 0) + 11);
  std::vector<AttnSlice> slices;
  const auto range = [&](int64_t total) {
    int64_t a = random.below(total + 1), b = random.below(total + 1);
    if (a > b) std::swap(a, b);
    return Range{a, b};
  };
  constexpr int kSlices = 7;
  for (int i = 0; i < kSlices; ++i) {
    const AttnSlice slice{range(c.sq), range(c.sk), static_cast<MaskType>(random.below(4))};
    if (!holes) {
      slices.push_back(slice);
      continue;
    }
    for (int64_t row = slice.q.begin; row < slice.q.end; ++row) {  // a full slice a row, with the row's keys
      const Range keys = attnmux::keys_of_row(slice, row);
      if (row % 3 != 0 && !keys.empty()) slices.push_back({{row, row + 1}, keys, MaskType::kFull});
    }
  }
  return from_slices(std::move(slices), c);
}

CaseMask random_tree(const Case& c) {
  // One root, children with one or two levels below; the nodes' lengths are cut out of sq at random.
  Random random(c.seed + 23);
  constexpr int64_t kNodes = 7;
  const std::vector<int64_t> parent = {-1, 0, 0, 1, 1, 2, 2};
  Lengths cuts = {0, c.sq};
  while (cuts.size() < kNodes + 1) cuts.push_back(random.below(c.sq + 1));
  std::sort(cuts.begin(), cuts.end());
  Lengths lengths(kNodes);
  for (int64_t i = 0; i < kNodes; ++i) lengths[i] = cuts[i + 1] - cuts[i];
  const std::vector<std::vector<int64_t>> paths = {{0, 1, 3}, {0, 1, 4}, {0, 2, 5}, {0, 2, 6}};
  return {prefix_tree(lengths, paths).mask, [lengths, parent](int64_t q, int64_t k) {
            const auto of_q = place(lengths, q), of_k = place(lengths, k);
            if (of_q.document == of_k.document) return of_k.at <= of_q.at;
            for (int64_t node = parent[of_q.document]; node >= 0; node = parent[node]) {
              if (static_cast<size_t>(node) == of_k.document) return true;
            }
            return false;
          }};
}

CaseMask random_spans(const Case& c) {
  Random random(c.seed + 31);
  std::vector<Range> spans;
  for (int64_t at = random.below(8); at < c.sq;) {
    const int64_t end = std::min(c.sq, at + 1 + random.below(c.sq / 4 + 1));
    spans.push_back({at, end});
    at = end + 1 + random.below(c.sq / 4 + 1);
  }
  return {bidirectional_spans_mask(c.sq, spans), [spans](int64_t q, int64_t k) {
            return k <= q || std::any_of(spans.begin(), spans.end(), [&](const Range& span) {
                     return q >= span.begin && q < span.end && k >= span.begin && k < span.end;
                   });
          }};
}

CaseMask window(const Text& text, const Case& c, const Lengths& documents, int64_t sink) {
  const int64_t left = text.argument(1), right = text.argument(2);
  return {sliding_window_mask(documents, {.left = left, .right = right, .sink_tokens = sink}),
          [=](int64_t q, int64_t k) {
            const Place of_q = place(documents, q), of_k = place(documents, k);
            if (of_q.document != of_k.document) return false;
            if (right >= 0 && of_k.at > of_q.at + right) return false;
            return left < 0 || of_k.at >= of_q.at - left || of_k.at < sink;
          }};
}

CaseMask documents_mask(const Lengths& lengths, MaskType type) {
  return {varlen_mask(lengths, type), [lengths, type](int64_t q, int64_t k) {
            const Place of_q = place(lengths, q), of_k = place(lengths, k);
            return of_q.document == of_k.document && (type == MaskType::kFull || of_k.at <= of_q.at);
          }};
}

CaseMask cross_documents(const std::vector<std::pair<int64_t, int64_t>>& pairs, const Case& c) {
  std::vector<AttnSlice> slices;
  Lengths q_lengths, k_lengths;
  Range q, k;
  for (const auto& [length_q, length_k] : pairs) {
    q = {q.end, q.end + length_q};
    k = {k.end, k.end + length_k};
    slices.push_back({q, k, MaskType::kCausal});
    q_lengths.push_back(length_q);
    k_lengths.push_back(length_k);
  }
  return {AttnMaskSpec(slices, c.sq, c.sk), [q_lengths, k_lengths](int64_t q, int64_t k) {
            const Place of_q = place(q_lengths, q), of_k = place(k_lengths, k);
            if (of_q.document != of_k.document) return false;
            return of_k.at <= of_q.at + k_lengths[of_k.document] - q_lengths[of_q.document];
          }};
}

CaseMask prefix_lm(const std::vector<std::pair<int64_t, int64_t>>& documents) {
  std::vector<PrefixDocument> as_built;
  Lengths lengths, prefixes;
  for (const auto& [prefix, rest] : documents) {
    as_built.push_back({prefix, rest});
    lengths.push_back(prefix + rest);
    prefixes.push_back(prefix);
  }
  return {prefix_lm_mask(as_built), [lengths, prefixes](int64_t q, int64_t k) {
            const Place of_q = place(lengths, q), of_k = place(lengths, k);
            return of_q.document == of_k.document && (of_k.at <= of_q.at || of_k.at < prefixes[of_k.document]);
          }};
}

CaseMask chunked(int64_t chunk, const Case& c) {
  return {chunked_local_mask(c.sq, chunk), [chunk](int64_t q, int64_t k) { return q / chunk == k / chunk && k <= q; }};
}

const std::vector<std::string>& kinds() {
  static const std::vector<std::string> names = {
      "full",        "causal",       "inv-causal", "bi-causal",     "window",       "varlen",
      "varlen-full", "varlen-cross", "prefix-lm",  "varlen-window", "block-causal", "chunked",
      "spans",       "tree",         "union",      "holes",         "nothing"};
  return names;
}

// Masks of one sequence that attends itself.
void require_square(const Case& c) {
  if (c.sq != c.sk) fail(c.mask, "needs sq == sk, got " + std::to_string(c.sq) + " and " + std::to_string(c.sk));
}

}  // namespace

std::pair<std::optional<int64_t>, std::optional<int64_t>> listed_tokens(const std::string& mask) {
  const Text text(mask);
  const auto both = [](int64_t n) { return std::pair{std::optional(n), std::optional(n)}; };
  if (text.parts.size() < 2) return {};
  if (text.kind() == "varlen" || text.kind() == "varlen-full" || text.kind() == "block-causal") {
    return both(sum(text.lengths(1)));
  }
  if (text.kind() == "varlen-window" && text.parts.size() == 4) return both(sum(text.lengths(3)));
  if (text.kind() == "varlen-cross" || text.kind() == "prefix-lm") {
    int64_t first = 0, second = 0;
    for (const auto& [a, b] : text.pairs(1, text.kind() == "prefix-lm" ? '-' : 'x')) first += a, second += b;
    if (text.kind() == "prefix-lm") return both(first + second);
    return {first, second};
  }
  return {};
}

CaseMask mask_of(const Case& c) {
  const Text text(c.mask);
  const std::string& kind = text.kind();
  if (std::find(kinds().begin(), kinds().end(), kind) == kinds().end()) {
    throw Error(ErrorCode::kUsage, unknown_word("mask", kind, kinds()));
  }
  const auto [tokens_q, tokens_k] = listed_tokens(c.mask);
  if ((tokens_q && *tokens_q != c.sq) || (tokens_k && *tokens_k != c.sk)) {
    fail(c.mask, "its lengths add up to " + std::to_string(*tokens_q) + " queries and " + std::to_string(*tokens_k) +
                     " keys, sq and sk say " + std::to_string(c.sq) + " and " + std::to_string(c.sk));
  }
  if (kind == "window")
    text.takes(2, 3);
  else if (kind == "varlen-window")
    text.takes(3, 3);
  else if (kind == "varlen" || kind == "varlen-full" || kind == "varlen-cross" || kind == "prefix-lm" ||
           kind == "block-causal" || kind == "chunked")
    text.takes(1, 1);
  else
    text.takes(0, 0);

  if (kind == "full") return {full_mask(c.sq, c.sk), [](int64_t, int64_t) { return true; }};
  if (kind == "causal") {
    return {causal_mask(c.sq, c.sk), [n = c.sk - c.sq](int64_t q, int64_t k) { return k <= q + n; }};
  }
  if (kind == "inv-causal") return one_slice(MaskType::kInvCausal, c);
  if (kind == "bi-causal") return one_slice(MaskType::kBiCausal, c);
  if (kind == "union") return random_union(c, /*holes=*/false);
  if (kind == "holes") return random_union(c, /*holes=*/true);
  if (kind == "nothing") return {AttnMaskSpec({}, c.sq, c.sk), [](int64_t, int64_t) { return false; }};
  if (kind == "varlen-cross") return cross_documents(text.pairs(1, 'x'), c);
  require_square(c);
  if (kind == "window") {
    const int64_t sink = text.parts.size() == 4 ? text.argument(3) : 0;
    return window(text, c, {c.sq}, sink);
  }
  if (kind == "varlen-window") return window(text, c, text.lengths(3), 0);
  if (kind == "varlen") return documents_mask(text.lengths(1), MaskType::kCausal);
  if (kind == "varlen-full") return documents_mask(text.lengths(1), MaskType::kFull);
  if (kind == "prefix-lm") return prefix_lm(text.pairs(1, '-'));
  if (kind == "block-causal") {
    const Lengths blocks = text.lengths(1);
    return {block_causal_mask(blocks),
            [blocks](int64_t q, int64_t k) { return place(blocks, k).document <= place(blocks, q).document; }};
  }
  if (kind == "chunked") {
    if (text.argument(1) < 1) fail(c.mask, "a chunk has at least one token");
    return chunked(text.argument(1), c);
  }
  if (kind == "spans") return random_spans(c);
  return random_tree(c);
}

}  // namespace attnmux::conformance
