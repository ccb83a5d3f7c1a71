// wgmma (PTX ISA 9.7.15): 64 x N x 16 products of bf16 or fp16 with fp32 accumulators, and their shared-memory
// descriptors. Operands in shared memory are tiles of 64 x 16-bit columns (128 bytes) with 128-byte swizzle, the layout
// that a tensor map box of {64, 1, rows} writes; a head of 128 columns is two such tiles, one behind the other.
//
// Accumulator of thread t: warp w = t / 32 of the group holds rows 16 w .. 16 w + 15; lane l holds
//   acc[4 j + 2 h + e] = element (row 16 w + l / 4 + 8 h, column 8 j + 2 (l % 4) + e).
#pragma once

#include <type_traits>

#include "ffa_sm90/ptx.cuh"

namespace attnmux::ffa_sm90 {

inline constexpr uint32_t kSwizzleBytes = 128;

// K-major operand (rows of the product x head_dim): 8-row groups lie 1024 bytes apart. Along the reduction, 16 columns
// are 32 bytes, and 64 columns one whole tile.
inline __device__ uint64_t descriptor_k_major(uint32_t smem) {
  return (uint64_t{1} << 62) | (uint64_t{1024 >> 4} << 32) | (uint64_t{1} << 16) | ((smem & 0x3FFFF) >> 4);
}

// MN-major operand: the reduction runs over rows, the product's N over columns. 64-column tiles lie `tile_bytes` apart,
// 8-row groups 1024 bytes; 16 rows of the reduction are 2048 bytes.
inline __device__ uint64_t descriptor_mn_major(uint32_t smem, uint32_t tile_bytes) {
  return (uint64_t{1} << 62) | (uint64_t{1024 >> 4} << 32) | (uint64_t{tile_bytes >> 4} << 16) |
         ((smem & 0x3FFFF) >> 4);
}

// The operand `bytes` further on. Addresses never carry into the other fields, so half of a 64-bit sum is enough.
inline __device__ uint64_t advance(uint64_t descriptor, uint32_t bytes) {
  return (descriptor & 0xFFFFFFFF00000000u) | (static_cast<uint32_t>(descriptor) + (bytes >> 4));
}

// A value that the compiler takes for new each time: keeps what is derived from it in a loop from being hoisted out of
// the loop into registers that the accumulators need.
inline __device__ uint32_t opaque(uint32_t value) {
  asm volatile("" : "+r"(value));
  return value;
}

inline __device__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
inline __device__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until at most N groups are in flight.
template <int N>
inline __device__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

// Keeps the compiler from moving uses of registers (of the first kCount) across the point where the tensor cores own
// them, or across a wait.
template <int kCount = 0, class R, int N>
inline __device__ void pin(R (&registers)[N]) {
#pragma unroll
  for (int i = 0; i < (kCount > 0 ? kCount : N); ++i) {
    if constexpr (std::is_same_v<R, float>) {
      asm volatile("" : "+f"(registers[i])::"memory");
    } else {
      asm volatile("" : "+r"(registers[i])::"memory");
    }
  }
}

// Operand lists of the instructions below.
#define ATTNMUX_ACC32(d)                                                                                      \
  "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), \
      "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]),  \
      "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), \
      "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
#define ATTNMUX_ACC64(d)                                                                                      \
  "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), \
      "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]),  \
      "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), \
      "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), \
      "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), \
      "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]), \
      "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), "+f"(d[56]), \
      "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
#define ATTNMUX_TEXT32                                                     \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define ATTNMUX_TEXT64                                                               \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

// d = a b + (accumulate ? d : 0). kTransA, kTransB: 1 for an MN-major operand.
#define ATTNMUX_DEFINE_WGMMA_N64(kName, kType)                                                                        \
  template <int kTransA, int kTransB>                                                                                 \
  inline __device__ void wgmma_ss_##kName(float(&d)[32], uint64_t a, uint64_t b, int accumulate) {                    \
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %34, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32." kType "." kType \
                 " {" ATTNMUX_TEXT32 "}, %32, %33, p, 1, 1, %35, %36; }"                                              \
                 : ATTNMUX_ACC32(d)                                                                                   \
                 : "l"(a), "l"(b), "r"(accumulate), "n"(kTransA), "n"(kTransB));                                      \
  }                                                                                                                   \
  template <int kTransB>                                                                                              \
  inline __device__ void wgmma_rs_##kName(float(&d)[32], const uint32_t(&a)[4], uint64_t b, int accumulate) {         \
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %37, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32." kType "." kType \
                 " {" ATTNMUX_TEXT32 "}, {%32, %33, %34, %35}, %36, p, 1, 1, %38; }"                                  \
                 : ATTNMUX_ACC32(d)                                                                                   \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(kTransB));                \
  }
#define ATTNMUX_DEFINE_WGMMA_N128(kName, kType)                                                                        \
  template <int kTransA, int kTransB>                                                                                  \
  inline __device__ void wgmma_ss_##kName(float(&d)[64], uint64_t a, uint64_t b, int accumulate) {                     \
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %66, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32." kType "." kType \
                 " {" ATTNMUX_TEXT64 "}, %64, %65, p, 1, 1, %67, %68; }"                                               \
                 : ATTNMUX_ACC64(d)                                                                                    \
                 : "l"(a), "l"(b), "r"(accumulate), "n"(kTransA), "n"(kTransB));                                       \
  }                                                                                                                    \
  template <int kTransB>                                                                                               \
  inline __device__ void wgmma_rs_##kName(float(&d)[64], const uint32_t(&a)[4], uint64_t b, int accumulate) {          \
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %69, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32." kType "." kType \
                 " {" ATTNMUX_TEXT64 "}, {%64, %65, %66, %67}, %68, p, 1, 1, %70; }"                                   \
                 : ATTNMUX_ACC64(d)                                                                                    \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(kTransB));                 \
  }

ATTNMUX_DEFINE_WGMMA_N64(bf16, "bf16")
ATTNMUX_DEFINE_WGMMA_N64(f16, "f16")
ATTNMUX_DEFINE_WGMMA_N128(bf16, "bf16")
ATTNMUX_DEFINE_WGMMA_N128(f16, "f16")

// a and b from shared memory. The accumulator's size selects N = 2 size.
template <class T, int kTransA, int kTransB, int N>
inline __device__ void wgmma_ss(float (&d)[N], uint64_t a, uint64_t b, int accumulate) {
  if constexpr (std::is_same_v<T, __half>) {
    wgmma_ss_f16<kTransA, kTransB>(d, a, b, accumulate);
  } else {
    wgmma_ss_bf16<kTransA, kTransB>(d, a, b, accumulate);
  }
}

// a from registers: a[0..3] = packed accumulator pairs (0, 1), (2, 3), (4, 5), (6, 7) of two neighbouring 8-column
// blocks.
template <class T, int kTransB, int N>
inline __device__ void wgmma_rs(float (&d)[N], const uint32_t (&a)[4], uint64_t b, int accumulate) {
  if constexpr (std::is_same_v<T, __half>) {
    wgmma_rs_f16<kTransB>(d, a, b, accumulate);
  } else {
    wgmma_rs_bf16<kTransB>(d, a, b, accumulate);
  }
}

#undef ATTNMUX_DEFINE_WGMMA_N64
#undef ATTNMUX_DEFINE_WGMMA_N128
#undef ATTNMUX_ACC32
#undef ATTNMUX_ACC64
#undef ATTNMUX_TEXT32
#undef ATTNMUX_TEXT64

}  // namespace attnmux::ffa_sm90
