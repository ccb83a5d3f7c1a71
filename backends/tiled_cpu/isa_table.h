// The kernel table of one instruction set: the last include of isa_*.cpp.
#pragma once

#include "backward.h"

namespace attnmux::tiled_cpu {
namespace ATTNMUX_ISA {

template <class S>
constexpr Kernels kKernels = {.packed_tile_bytes = packed_tile_bytes<S>,
                              .forward_scratch = forward_scratch<S>,
                              .forward = forward<S>,
                              .backward_scratch = backward_scratch<S>,
                              .delta = delta<S>,
                              .backward = backward<S>};

constexpr KernelTable kTable = {.float32 = kKernels<float>,
                                .bfloat16 = kKernels<BFloat16>,
                                .float16 = kKernels<Float16>,
                                .float64 = kKernels<double>};

}  // namespace ATTNMUX_ISA
}  // namespace attnmux::tiled_cpu
