// What this machine offers, and what is missing for what: `attnmux doctor`.
//
//   for (const Finding& finding : examine_system()) print(finding.name, finding.found ? finding.version :
//   finding.remedy);
//
// Looks libraries up at run time, so one build answers for every machine. Never throws for what is not there. Loads
// LibTorch's CUDA part where it is installed. One thread at a time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "attnmux/export.h"

namespace attnmux {

struct Finding {
  std::string name;  // "LibTorch", "NVIDIA driver", "NCCL", ...
  bool found = false;
  std::string version;  // or another fact, e.g. the names of the GPUs
  std::string where;    // file, where there is one
  std::string purpose;  // what it is needed for
  std::string remedy;   // what to do where it is missing
};

ATTNMUX_API std::vector<Finding> examine_system();

struct Gpu {
  std::string name;
  int32_t arch = 0;  // 90 for compute capability 9.0
};
// Those that the driver shows, in its order; none without a driver.
ATTNMUX_API std::vector<Gpu> visible_gpus();

}  // namespace attnmux
