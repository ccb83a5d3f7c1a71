// The kernels for any machine: 16-byte vectors of the baseline (compiler flags in CMakeLists.txt).
#define ATTNMUX_ISA generic
#include "isa_table.h"

namespace attnmux::tiled_cpu {

KernelTable generic_kernels() { return generic::kTable; }

}  // namespace attnmux::tiled_cpu
