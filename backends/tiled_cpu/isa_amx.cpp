// The kernels for AMX with bf16 (compiler flags in CMakeLists.txt): bf16 on matrix tiles, other types as for AVX-512.
#define ATTNMUX_ISA amx
#include "bf16_table.h"

namespace attnmux::tiled_cpu {

KernelTable amx_kernels() {
  KernelTable table = avx512_kernels();
  table.bfloat16 = amx::kBf16Kernels;
  return table;
}

}  // namespace attnmux::tiled_cpu
