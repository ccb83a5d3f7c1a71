// Which kernels this processor can run.
#pragma once

#include "tiled_cpu/kernel.h"
#include "tiled_cpu/magi_backend.h"

namespace attnmux::tiled_cpu {

// REQUIRES: isa <= best_cpu_isa().
KernelTable kernel_table(CpuIsa isa);

}  // namespace attnmux::tiled_cpu
