// The kernels for AVX512_BF16 (compiler flags in CMakeLists.txt): bf16 by dot products, other types as for AVX-512.
#define ATTNMUX_ISA avx512_bf16
#include "bf16_table.h"

namespace attnmux::tiled_cpu {

KernelTable avx512_bf16_kernels() {
  KernelTable table = avx512_kernels();
  table.bfloat16 = avx512_bf16::kBf16Kernels;
  return table;
}

}  // namespace attnmux::tiled_cpu
