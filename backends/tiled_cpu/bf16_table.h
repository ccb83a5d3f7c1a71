// The kernels with products in bf16 of one instruction set: the last include of isa_avx512_bf16.cpp and isa_amx.cpp.
#pragma once

#include "bf16_backward.h"

namespace attnmux::tiled_cpu {
namespace ATTNMUX_ISA {

constexpr Kernels kBf16Kernels = {.packed_tile_bytes = bf16_packed_tile_bytes,
                                  .forward_scratch = bf16_forward_scratch,
                                  .forward = bf16_forward,
                                  .backward_scratch = bf16_backward_scratch,
                                  .delta = delta<BFloat16>,
                                  .backward = bf16_backward};

}  // namespace ATTNMUX_ISA
}  // namespace attnmux::tiled_cpu
