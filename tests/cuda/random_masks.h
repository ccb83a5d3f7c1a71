// Random masks around the sizes at which the Hopper kernels cut: 64, 128 and 192.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "attnmux/mask_builders.h"
#include "mask_cases.h"

namespace attnmux::testing {

class RandomMasks {
 public:
  explicit RandomMasks(uint64_t seed) : random_(seed) {}

  int64_t between(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random_); }
  template <class T>
  T among(std::initializer_list<T> values) {
    return values.begin()[between(0, static_cast<int64_t>(values.size()) - 1)];
  }

  MaskCase draw() {
    switch (between(0, 11)) {
      case 0: return {"full", full_mask(length(), length())};
      case 1: return {"causal", square_causal()};
      case 2: return {"causal_cross", causal_mask(length(), length())};
      case 3: return {"varlen", varlen_mask(lengths(), among({MaskType::kFull, MaskType::kCausal}))};
      case 4: return {"varlen_cross", cross_documents()};
      case 5:
        return {"window", sliding_window_mask(lengths(), {.left = among<int64_t>({-1, 0, 1, 17, 64, 127, 200}),
                                                          .right = among<int64_t>({0, 0, 3, 64, -1}),
                                                          .sink_tokens = among<int64_t>({0, 0, 4})})};
      case 6: return {"prefix_tree", tree()};
      case 7: return {"block_causal", block_causal_mask(lengths())};
      case 8: return {"spans", spans()};
      case 9: return {"few_keys", few_keys()};
      case 10: return {"pairs", pairs()};
      default: return {"union", slices()};
    }
  }

 private:
  // One key to eleven strips, most of them next to a cut.
  int64_t length() {
    if (between(0, 5) == 0) return between(1, 20);
    return std::max<int64_t>(1, 64 * between(0, 11) + between(-1, 1));
  }

  std::vector<int64_t> lengths() {
    std::vector<int64_t> list(between(1, 6));
    for (int64_t& length : list) length = std::max<int64_t>(1, 64 * between(0, 3) + between(-1, 1));
    return list;
  }

  AttnMaskSpec square_causal() {
    const int64_t tokens = length();
    return causal_mask(tokens, tokens);
  }

  AttnMaskSpec cross_documents() {
    const MaskType type = among({MaskType::kFull, MaskType::kCausal, MaskType::kInvCausal, MaskType::kBiCausal});
    std::vector<AttnSlice> list;
    int64_t q = 0, k = 0;
    for (int64_t documents = between(1, 5); documents > 0; --documents) {
      const int64_t queries = between(0, 200), keys = between(0, 200);
      list.push_back({.q = {q, q + queries}, .k = {k, k + keys}, .type = type});
      q += queries;
      k += keys;
    }
    return AttnMaskSpec(list, q + 1, k + 1);
  }

  AttnMaskSpec tree() {
    std::vector<int64_t> nodes = {between(1, 300)};
    std::vector<std::vector<int64_t>> paths;
    for (int64_t i = 1; i <= between(1, 5); ++i) {
      nodes.push_back(between(1, 150));
      paths.push_back({0, static_cast<int64_t>(nodes.size()) - 1});
    }
    return prefix_tree(nodes, paths).mask;
  }

  AttnMaskSpec spans() {
    const int64_t total = length();
    const int64_t begin = between(0, total), end = between(begin, total);
    return bidirectional_spans_mask(total, begin < end ? std::vector<Range>{{begin, end}} : std::vector<Range>{});
  }

  // Every row one to five keys, or none; all rows the same ones, or blocks of rows each their own.
  AttnMaskSpec few_keys() {
    const int64_t total_q = length();
    if (between(0, 1) == 0) return full_mask(total_q, between(1, 5));
    const int64_t total_k = length();
    std::vector<AttnSlice> list;
    for (int64_t q = 0; q < total_q;) {
      const int64_t rows = std::min(total_q - q, between(1, 150)), keys = std::min(total_k, between(0, 5));
      const int64_t k = between(0, total_k - keys);
      list.push_back({.q = {q, q + rows}, .k = {k, k + keys}, .type = MaskType::kFull});
      q += rows;
    }
    return AttnMaskSpec(list, total_q, total_k);
  }

  AttnMaskSpec pairs() {
    const int64_t total_q = between(1, 140), total_k = between(1, 140), percent = among<int64_t>({1, 50, 99});
    std::vector<uint8_t> dense(total_q * total_k);
    for (uint8_t& pair : dense) pair = between(0, 99) < percent;
    return mask_from_dense(dense, total_q, total_k);
  }

  AttnMaskSpec slices() {
    const int64_t total_q = length(), total_k = length();
    const auto range = [&](int64_t total) {
      const int64_t a = between(0, total), b = between(0, total);
      return Range{std::min(a, b), std::max(a, b)};
    };
    std::vector<AttnSlice> list(between(0, 7));
    for (AttnSlice& slice : list) {
      slice = {.q = range(total_q),
               .k = range(total_k),
               .type = among({MaskType::kFull, MaskType::kCausal, MaskType::kInvCausal, MaskType::kBiCausal})};
    }
    return AttnMaskSpec(list, total_q, total_k);
  }

  std::mt19937_64 random_;
};

}  // namespace attnmux::testing
