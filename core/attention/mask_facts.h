// What a request says about a mask, derived once per mask.
#pragma once

#include "attnmux/mask.h"
#include "attnmux/mask_family.h"

namespace attnmux {

struct MaskFacts {
  MaskFamily family = MaskFamily::kArbitrary;
  bool cross_lengths = false;
  bool empty_rows = false;
};

MaskFacts facts_of(const AttnMaskSpec& mask);

}  // namespace attnmux
