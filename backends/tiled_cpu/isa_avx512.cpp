// The kernels for AVX-512 F, BW, DQ and VL (compiler flags in CMakeLists.txt).
#define ATTNMUX_ISA avx512
#include "isa_table.h"

namespace attnmux::tiled_cpu {

KernelTable avx512_kernels() { return avx512::kTable; }

}  // namespace attnmux::tiled_cpu
