// Cases that MagiAttention's own tests publish, as masks.
#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "attnmux/mask.h"

namespace attnmux {

inline const nlohmann::json& published_cases() {
  static const nlohmann::json cases =
      nlohmann::json::parse(std::ifstream(ATTNMUX_SOURCE_DIR "/tests/golden/published_cases.json"));
  return cases;
}

inline std::vector<Range> published_ranges(const nlohmann::json& json) {
  std::vector<Range> ranges;
  for (const nlohmann::json& range : json) ranges.push_back({range[0], range[1]});
  return ranges;
}

inline AttnSlice published_slice(const nlohmann::json& json) {
  return {.q = {json["q"][0], json["q"][1]},
          .k = {json["k"][0], json["k"][1]},
          .type = json["type"] == "full" ? MaskType::kFull : MaskType::kCausal};
}

// Of an entry of "dispatch".
inline AttnMaskSpec published_mask(const nlohmann::json& json) {
  std::vector<AttnSlice> slices;
  for (const nlohmann::json& slice : json["slices"]) slices.push_back(published_slice(slice));
  return AttnMaskSpec(slices, json["total"], json["total"]);
}

}  // namespace attnmux
