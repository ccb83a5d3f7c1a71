#include "tools/attnmux/mask_suite.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <random>

#include "attnmux/error.h"
#include "attnmux/mask_builders.h"
#include "tools/attnmux/command.h"

namespace attnmux::tool {
namespace {

// Log-normal lengths, as documents of a corpus have them; the same in every run.
std::vector<int64_t> documents(int64_t tokens, int64_t count) {
  std::mt19937_64 random(20240229);
  const auto uniform = [&] { return (static_cast<double>(random() >> 11) + 0.5) * 0x1p-53; };
  std::vector<double> weights(count);
  double sum = 0;
  for (double& weight : weights) {
    weight = std::exp(std::sqrt(-2 * std::log(uniform())) * std::cos(2 * std::numbers::pi * uniform()));
    sum += weight;
  }
  std::vector<int64_t> lengths;
  int64_t used = 0;
  double before = 0;
  for (const double weight : weights) {
    before += weight;
    const auto end = static_cast<int64_t>(before / sum * static_cast<double>(tokens));
    lengths.push_back(end - used);
    used = end;
  }
  lengths.back() += tokens - used;
  return lengths;
}

// A prompt of a quarter of the tokens, and 16 answers to it.
AttnMaskSpec tree(int64_t tokens) {
  constexpr int64_t kBranches = 16;
  std::vector<int64_t> lengths{tokens / 4};
  std::vector<std::vector<int64_t>> paths;
  for (int64_t branch = 0; branch < kBranches; ++branch) {
    lengths.push_back((tokens - lengths[0]) * (branch + 1) / kBranches - (tokens - lengths[0]) * branch / kBranches);
    paths.push_back({0, branch + 1});
  }
  return prefix_tree(lengths, paths).mask;
}

}  // namespace

std::vector<NamedMask> mask_suite(int64_t tokens) {
  if (tokens < 1024 || tokens > int64_t{1} << 30) {
    throw Error(ErrorCode::kUsage, "--suite " + std::to_string(tokens) + ": 1024 to 1073741824 tokens are expected");
  }
  const int64_t count = tokens * 3000 >> 20;
  const int64_t left = std::min<int64_t>(4096, tokens / 8) - 1;
  const std::string size = " of " + with_separators(tokens);
  return {
      {"causal" + size, causal_mask(tokens, tokens)},
      {"varlen" + size + " in " + with_separators(std::max<int64_t>(count, 2)) + " documents",
       varlen_mask(documents(tokens, std::max<int64_t>(count, 2)), MaskType::kCausal)},
      {"window" + size + ", left=" + std::to_string(left), sliding_window_mask({tokens}, {.left = left, .right = 0})},
      {"tree" + size + " with 16 branches", tree(tokens)}};
}

}  // namespace attnmux::tool
