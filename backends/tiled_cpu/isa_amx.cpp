// The kernels for AMX with bf16 (compiler flags in CMakeLists.txt): bf16 on matrix tiles, other types as for AVX-512.
#define ATTNMUX_ISA amx
#include "amx_backward.h"

namespace attnmux::tiled_cpu {

KernelTable amx_kernels() {
  KernelTable table = avx512_kernels();
  table.bfloat16 = {.packed_tile_bytes = amx::amx_packed_tile_bytes,
                    .pack_keys = amx::amx_pack_keys,
                    .forward_scratch = amx::amx_forward_scratch,
                    .forward = amx::amx_forward,
                    .backward_scratch = amx::amx_backward_scratch,
                    .delta = amx::delta<BFloat16>,
                    .backward = amx::amx_backward};
  return table;
}

}  // namespace attnmux::tiled_cpu
