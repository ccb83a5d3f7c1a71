// "magi" on the CPU: tiled attention over the tile plan, forward and backward.
//
// Every mask, grouped-query heads without repeating keys, any strides, head_dim and head_dim_v from 1 to 512 (they may
// differ), fp32, bf16, fp16 and fp64. Time is proportional to the attended area, memory to the length. Results do not
// depend on the number of threads. bf16 and fp16 are computed in fp32 tiles and rounded once, at the end; where the
// processor has products of bf16 (AVX512_BF16, AMX), bf16 runs on them, with probabilities rounded to bf16 as well.
//
// Read in this order: kernel.h (what a kernel sees), forward.h and backward.h (the algorithms), packed_keys.h,
// softmax.h, panel_products.h, gemm.h, panel_mask.h, pack.h, simd.h, then the kernels with products in bf16, bf16_*.h;
// cpu_isa.cpp chooses, magi_backend.cpp prepares a mask and hands tiles to threads.
#pragma once

#include <memory>

#include "attnmux/backend.h"

namespace attnmux {

// Instruction sets, each including those before it. From kAvx512Bf16 on, bf16 has bf16 operands and fp32 sums: dot
// products of pairs with kAvx512Bf16, matrix tiles with kAmx.
enum class CpuIsa { kGeneric, kAvx2, kAvx512, kAvx512Bf16, kAmx };

// The best that this processor and operating system have, within LibTorch's own limit (ATEN_CPU_CAPABILITY=avx2 or
// default lowers both).
CpuIsa best_cpu_isa();

// Throws Error(kInvalidArgument) for an instruction set that this processor lacks.
std::shared_ptr<const AttentionBackend> make_magi_backend(CpuIsa isa = best_cpu_isa());

}  // namespace attnmux
