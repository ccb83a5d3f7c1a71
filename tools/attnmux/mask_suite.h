// The masks that benchmarks of plans take: what training on long sequences looks like.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "attnmux/mask.h"

namespace attnmux::tool {

struct NamedMask {
  std::string name;
  AttnMaskSpec mask;
};

// Causal, log-normal documents (3000 a million tokens), a window of 4096 or an eighth of the tokens, a tree of 16
// branches; the same in every run. Throws Error(kUsage) for a number of tokens that the flag --suite does not take.
std::vector<NamedMask> mask_suite(int64_t tokens);

}  // namespace attnmux::tool
