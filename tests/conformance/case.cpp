#include "conformance/case.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <utility>

#include "attnmux/error.h"
#include "attnmux/spelling.h"
#include "conformance/case_mask.h"
#include "conformance/rank_cases.h"
#include "conformance/values.h"

namespace attnmux::conformance {
namespace {

constexpr std::pair<Family, const char*> kFamilies[] = {
    {Family::kMeta, "meta"},
    {Family::kQuery, "query"},
    {Family::kForward, "fwd"},
    {Family::kBackward, "bwd"},
    {Family::kLse, "lse"},
    {Family::kEmptyRows, "empty"},
    {Family::kGqa, "gqa"},
    {Family::kStrides, "strides"},
    {Family::kDtype, "dtype"},
    {Family::kHonesty, "honesty"},
    {Family::kDeterminism, "determinism"},
    {Family::kStreams, "streams"},
    {Family::kConcurrency, "concurrency"},
    {Family::kMemory, "memory"},
    {Family::kErrors, "errors"},
    {Family::kCp, "cp"},
    {Family::kGroup, "group"},
    {Family::kFaults, "faults"},
};

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64};

// What each family knows beyond its main question; "" stands for that question.
std::vector<std::string> checks_of(Family family) {
  switch (family) {
    case Family::kMeta: return {"exports", "needed", "info", "side-by-side", "init-twice"};
    case Family::kQuery: return {"pure", "threads", "reasons", "all-gates", "carried"};
    case Family::kForward:
    case Family::kStreams: return {""};
    case Family::kBackward: return {"", "some-grads", "strided-dout", "merged"};
    case Family::kLse: return {"", "merge"};
    case Family::kEmptyRows:
    case Family::kGqa:
    case Family::kDtype:
    case Family::kHonesty:
    case Family::kDeterminism:
    case Family::kConcurrency: return {"", "grad"};
    case Family::kMemory: return {"growth", "leak", "grad-growth", "grad-leak"};
    case Family::kErrors: return {"empty", "scale", "recovers", "grad-empty", "grad-scale"};
    case Family::kCp: return {"", "determinism", "failure"};
    case Family::kGroup: return group_checks();
    case Family::kFaults: return fault_checks();
    case Family::kStrides: break;
  }
  std::vector<std::string> checks;
  for (const char* shape : {"transposed", "sliced", "misaligned", "strided-dim", "broadcast"}) {
    checks.push_back(shape);
    checks.push_back(std::string("grad-") + shape);
  }
  return checks;
}

bool has_tensors(Family family) { return family != Family::kMeta && family != Family::kQuery && !is_of_groups(family); }

[[noreturn]] void fail(std::string_view text, const std::string& what) {
  throw Error(ErrorCode::kUsage, "case \"" + std::string(text) + "\": " + what +
                                     ". A case is FAMILY/key=value,..., for example "
                                     "fwd/mask=causal,sq=257,sk=513,hq=8,hk=2,d=128,dt=bf16,seed=7");
}

template <class Integer>
Integer number(std::string_view text, std::string_view key, std::string_view value, Integer low, Integer high) {
  Integer result{};
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), result);
  if (error != std::errc() || end != value.data() + value.size() || result < low || result > high) {
    fail(text, std::string(key) + "=" + std::string(value) + " is not a whole number from " + std::to_string(low) +
                   " to " + std::to_string(high));
  }
  return result;
}

}  // namespace

std::string_view to_string(Family family) {
  for (const auto& [value, name] : kFamilies) {
    if (value == family) return name;
  }
  return "?";
}

const std::vector<Family>& all_families() {
  static const std::vector<Family> families = [] {
    std::vector<Family> result;
    for (const auto& entry : kFamilies) result.push_back(entry.first);
    return result;
  }();
  return families;
}

bool is_of_groups(Family family) { return family == Family::kGroup || family == Family::kFaults; }

Family parse_family(std::string_view text) {
  std::vector<std::string> known;
  for (const auto& [value, name] : kFamilies) {
    if (text == name) return value;
    known.emplace_back(name);
  }
  throw Error(ErrorCode::kUsage, unknown_word("family", text, known));
}

DType parse_dtype(std::string_view text) {
  std::vector<std::string> known;
  for (DType dtype : kDTypes) {
    if (text == to_string(dtype)) return dtype;
    known.emplace_back(to_string(dtype));
  }
  throw Error(ErrorCode::kUsage, unknown_word("dtype", text, known));
}

std::string to_string(const Case& c) {
  std::string text = std::string(to_string(c.family)) + "/";
  const auto add = [&](const char* key, const std::string& value) {
    text.append(text.back() == '/' ? "" : ",").append(key).append("=").append(value);
  };
  if (!c.check.empty()) add("check", c.check);
  if (has_tensors(c.family)) {
    add("mask", c.mask);
    add("sq", std::to_string(c.sq));
    add("sk", std::to_string(c.sk));
    add("hq", std::to_string(c.hq));
    add("hk", std::to_string(c.hk));
    add("d", std::to_string(c.d));
    if (c.dv != 0) add("dv", std::to_string(c.dv));
    add("dt", std::string(to_string(c.dt)));
    if (c.values != "randn") add("values", c.values);
  }
  if (c.family == Family::kCp || is_of_groups(c.family)) add("cp", std::to_string(c.cp));
  if (c.family == Family::kCp) {
    add("chunk", std::to_string(c.chunk));
    add("stages", std::to_string(c.stages));
  }
  add("seed", std::to_string(c.seed));
  return text;
}

Case parse_case(std::string_view text) {
  constexpr int64_t kMaxTokens = 1 << 20, kMaxHeads = 1024, kMaxHeadDim = 4096, kMaxRanks = 64, kMaxStages = 64;
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) fail(text, "there is no '/' behind the family");
  Case c;
  c.family = parse_family(text.substr(0, slash));
  bool sq_given = false, sk_given = false;
  using Read = std::function<void(std::string_view)>;
  const auto size = [&](const char* key, int64_t& to, int64_t low, int64_t high) -> std::pair<std::string, Read> {
    return {key, [&to, text, key, low, high](std::string_view value) { to = number(text, key, value, low, high); }};
  };
  std::vector<std::pair<std::string, Read>> keys = {
      {"check", [&](std::string_view value) { c.check = value; }},
      {"seed", [&](std::string_view value) { c.seed = number<uint64_t>(text, "seed", value, 0, UINT64_MAX); }}};
  if (has_tensors(c.family)) {
    keys.insert(
        keys.end(),
        {{"mask", [&](std::string_view value) { c.mask = value; }},
         {"sq", [&](std::string_view v) { sq_given = true, c.sq = number<int64_t>(text, "sq", v, 0, kMaxTokens); }},
         {"sk", [&](std::string_view v) { sk_given = true, c.sk = number<int64_t>(text, "sk", v, 0, kMaxTokens); }},
         size("hq", c.hq, 1, kMaxHeads),
         size("hk", c.hk, 1, kMaxHeads),
         size("d", c.d, 1, kMaxHeadDim),
         size("dv", c.dv, 1, kMaxHeadDim),
         {"dt", [&](std::string_view value) { c.dt = parse_dtype(value); }},
         {"values", [&](std::string_view value) { c.values = value; }}});
  }
  if (c.family == Family::kCp || is_of_groups(c.family)) {
    keys.push_back(size("cp", c.cp, c.family == Family::kFaults ? 2 : 1, kMaxRanks));  // a fault needs a witness
    c.cp = 3;
  }
  if (c.family == Family::kCp) {
    keys.push_back(size("chunk", c.chunk, 1, kMaxTokens));
    keys.push_back(size("stages", c.stages, 1, kMaxStages));
  }
  std::vector<std::string> known, seen;
  for (const auto& [key, read] : keys) known.push_back(key);
  for (std::string_view rest = text.substr(slash + 1); !rest.empty();) {
    const std::string_view part = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), part.size() + 1));
    const size_t equals = part.find('=');
    const std::string key(part.substr(0, equals));
    if (equals == std::string_view::npos || equals + 1 == part.size()) fail(text, "\"" + key + "\" has no value");
    const auto found = std::find_if(keys.begin(), keys.end(), [&](const auto& entry) { return entry.first == key; });
    if (found == keys.end()) fail(text, unknown_word("key", key, known));
    if (std::find(seen.begin(), seen.end(), key) != seen.end()) fail(text, "key \"" + key + "\" is given twice");
    seen.push_back(key);
    found->second(part.substr(equals + 1));
  }
  const std::vector<std::string> checks = checks_of(c.family);
  if (std::find(checks.begin(), checks.end(), c.check) == checks.end())
    fail(text, unknown_word("check", c.check, checks));
  if (!has_tensors(c.family)) return c;
  try {
    const auto [tokens_q, tokens_k] = listed_tokens(c.mask);
    if (tokens_q && !sq_given) c.sq = *tokens_q;
    if (tokens_k && !sk_given) c.sk = *tokens_k;
    mask_of(c);
    require_values(c.values);
  } catch (const Error& error) {
    fail(text, error.what());
  }
  if (c.hq % c.hk != 0) fail(text, "hq must be a multiple of hk");
  if (c.family == Family::kCp && c.chunk > c.sq) fail(text, "chunk must not exceed sq");
  return c;
}

}  // namespace attnmux::conformance
