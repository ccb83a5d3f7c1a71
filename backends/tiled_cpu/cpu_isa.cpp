#include "tiled_cpu/cpu_isa.h"

#include <ATen/Version.h>

#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace attnmux {
namespace {

#if defined(__x86_64__)
bool cpu_has_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

bool cpu_has_avx512() {
  return cpu_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool cpu_has_avx512_bf16() {
  constexpr unsigned kAvx512Bf16 = 1u << 5;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return cpu_has_avx512() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax & kAvx512Bf16) != 0;
}

// Linux hands out the tile registers on request, for the whole process (arch_prctl, ARCH_REQ_XCOMP_PERM).
bool cpu_has_amx() {
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
  if (!(edx & kAmxBf16) || !(edx & kAmxTile)) return false;
  return cpu_has_avx512_bf16() && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

CpuIsa detect() {
#if defined(__x86_64__)
  // Not above what LibTorch itself keeps to, which ATEN_CPU_CAPABILITY can lower.
  const std::string aten = at::get_cpu_capability();
  const bool avx512_allowed = aten == "AVX512", avx2_allowed = avx512_allowed || aten == "AVX2";
  if (avx512_allowed && cpu_has_amx()) return CpuIsa::kAmx;
  if (avx512_allowed && cpu_has_avx512_bf16()) return CpuIsa::kAvx512Bf16;
  if (avx512_allowed && cpu_has_avx512()) return CpuIsa::kAvx512;
  if (avx2_allowed && cpu_has_avx2()) return CpuIsa::kAvx2;
#endif
  return CpuIsa::kGeneric;
}

}  // namespace

CpuIsa best_cpu_isa() {
  static const CpuIsa best = detect();
  return best;
}

tiled_cpu::KernelTable tiled_cpu::kernel_table(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa == CpuIsa::kAmx) return amx_kernels();
  if (isa == CpuIsa::kAvx512Bf16) return avx512_bf16_kernels();
  if (isa == CpuIsa::kAvx512) return avx512_kernels();
  if (isa == CpuIsa::kAvx2) return avx2_kernels();
#endif
  return generic_kernels();
}

}  // namespace attnmux
