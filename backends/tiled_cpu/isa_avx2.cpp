// The kernels for AVX2, FMA and F16C (compiler flags in CMakeLists.txt).
#define ATTNMUX_ISA avx2
#include "isa_table.h"

namespace attnmux::tiled_cpu {

KernelTable avx2_kernels() { return avx2::kTable; }

}  // namespace attnmux::tiled_cpu
