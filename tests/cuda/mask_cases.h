// Masks on which the Hopper kernels are tested: lengths around tile edges, cross lengths, unions, rows without keys.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "attnmux/mask_builders.h"

namespace attnmux::testing {

struct MaskCase {
  std::string name;
  AttnMaskSpec mask;
};

inline void PrintTo(const MaskCase& c, std::ostream* out) { *out << c.name; }

inline std::vector<MaskCase> mask_cases() {
  return {
      {"one_tile", full_mask(128, 128)},
      {"full_ragged", full_mask(129, 257)},
      {"one_pair", full_mask(1, 1)},
      {"strips", full_mask(193, 191)},
      {"causal", causal_mask(640, 640)},
      {"causal_cross", causal_mask(300, 777)},
      {"causal_more_queries", causal_mask(500, 130)},
      {"varlen", varlen_mask({1, 127, 128, 129, 63, 300}, MaskType::kCausal)},
      {"window", sliding_window_mask({700}, {.left = 200, .right = 0})},
      {"window_sink", sliding_window_mask({650}, {.left = 64, .right = 0, .sink_tokens = 4})},
      {"prefix_tree", prefix_tree({200, 90, 130, 70}, {{0, 1}, {0, 2}, {0, 3}}).mask},
      {"block_causal", block_causal_mask({128, 200, 56, 300})},
      {"bidirectional_span", bidirectional_spans_mask(400, {{100, 250}})},
      {"documents_of_strips", varlen_mask({64, 63, 65, 191, 193, 300}, MaskType::kFull)},
      {"few_keys", causal_mask(300, 3)},
      {"empty_rows", AttnMaskSpec({{.q = {100, 200}, .k = {30, 400}, .type = MaskType::kCausal}}, 500, 450)},
      {"no_pair", AttnMaskSpec({}, 200, 200)},
      {"union", AttnMaskSpec({{.q = {0, 300}, .k = {0, 300}, .type = MaskType::kBiCausal},
                              {.q = {17, 211}, .k = {40, 290}, .type = MaskType::kInvCausal},
                              {.q = {130, 400}, .k = {100, 180}, .type = MaskType::kFull}},
                             400, 300)},
  };
}

}  // namespace attnmux::testing
