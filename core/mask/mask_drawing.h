// The mask's picture with colours of one's own, e.g. one for each rank.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "attnmux/mask_io.h"
#include "trapezoid.h"

namespace attnmux {

struct MaskLook {
  std::string name;
  std::string color;
};

struct MaskPart {
  Trapezoid piece;
  size_t look = 0;  // index into looks
};

// As mask_to_svg, which draws the canonical form by type. parts: disjoint, together the mask.
std::string draw_mask(const AttnMaskSpec& mask, const std::vector<MaskLook>& looks, const std::vector<MaskPart>& parts,
                      const SvgOptions& options);

}  // namespace attnmux
