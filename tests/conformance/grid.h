// The fixed grid of cases: what is run of each family, before query() is asked.
#pragma once

#include <vector>

#include "conformance/case.h"

namespace attnmux::conformance {

struct GridOptions {
  bool gradients = false;      // also the backward of every family
  bool on_gpu = false;         // also streams; no family cp, whose ranks exchange tensors of the CPU
  DType dt = DType::kFloat32;  // what most cases use: a pair that the backend takes
  int64_t d = 64;
  uint64_t seed = 7;
};

std::vector<Case> grid(Family family, const GridOptions& options);

}  // namespace attnmux::conformance
