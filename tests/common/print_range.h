// Ranges in failure texts.
#pragma once

#include <ostream>

#include "attnmux/mask.h"

namespace attnmux {

inline std::ostream& operator<<(std::ostream& out, const Range& range) {
  return out << "[" << range.begin << ", " << range.end << ")";
}

}  // namespace attnmux
