// Where one rank writes down when it computed which part of a call.
#pragma once

#include <string>

#include "attnmux/trace.h"

namespace attnmux {

struct RankTrace {
  Trace* trace = nullptr;  // nothing is written down without
  int32_t rank = 0;

  // The time until the result goes out of scope.
  Trace::Scope compute(const std::string& what) const { return {trace, rank, "attention", what}; }
};

}  // namespace attnmux
