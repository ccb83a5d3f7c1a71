// What a plugin was built against, as plain data in ELF section ".attnmux.abi": read from the file before it is loaded.
//
//   AbiTag tag = read_abi_tag("lib/attnmux/plugins/magi.so");     // runs no code of the plugin
//   std::vector<AbiMismatch> wrong = compare_abi(host_abi_tag(), tag);
//
// at::Tensor and C++ classes cross the plugin boundary, so both sides must agree on LibTorch, on our headers and on the
// C++ ABI exactly. A library with an undefined LibTorch symbol fails to load before any of its code could say so, which
// is why the tag is read from the file. Plugin authors never touch this: ATTNMUX_PLUGIN (plugin.h) writes it.
// Plain values, any thread.
#pragma once

#include <torch/headeronly/version.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "attnmux/export.h"
#include "attnmux/interface_hash.h"  // made by the build: ATTNMUX_INTERFACE_HASH

namespace attnmux {

inline constexpr char kAbiSection[] = ".attnmux.abi";

// Major: a change of AbiTag's, PluginEntry's, HostApi's or Registrar's existing members, or of the entry's contract.
// Minor: a member appended to one of them; an older plugin goes on working, a newer one is refused by an older host.
// Whoever appends also lets parse_tag() and PluginLibrary accept the shorter struct of an older minor version.
inline constexpr uint32_t kAbiMajor = 1;
inline constexpr uint32_t kAbiMinor = 0;

// Bits of AbiTag::build_flags: each changes the layout or the calling of standard library types.
inline constexpr uint32_t kBuildDebugStl = 1;
inline constexpr uint32_t kBuildAddressSanitizer = 2;
inline constexpr uint32_t kBuildThreadSanitizer = 4;

struct AbiTag {
  char magic[8] = {'A', 'T', 'T', 'N', 'M', 'U', 'X', '\0'};
  uint32_t tag_size = 0;  // of this struct, as its writer knew it
  uint32_t abi_major = kAbiMajor;
  uint32_t abi_minor = kAbiMinor;
  uint32_t cxx11_abi = 0;        // _GLIBCXX_USE_CXX11_ABI
  uint32_t gxx_abi_version = 0;  // __GXX_ABI_VERSION
  uint32_t build_flags = 0;
  uint32_t cudart_major = 0;  // 0: the CUDA runtime is not used
  uint32_t nccl_major = 0;    // 0: NCCL is not used
  char interface_hash[40] = {};
  char torch_version[24] = {};
  char compiler[40] = {};  // shown, not compared
  char sm_list[40] = {};   // GPU architectures of the kernels inside, "90a"; shown, not compared
};
static_assert(std::is_trivially_copyable_v<AbiTag> && std::is_standard_layout_v<AbiTag>);

// What the build knows about the library being compiled; AttnmuxPlugin.cmake defines the macros that fill it.
struct AbiBuild {
  uint32_t cudart_major = 0;
  uint32_t nccl_major = 0;
  std::string_view sm_list;
};

// The tag of the translation unit that evaluates it.
consteval AbiTag make_abi_tag(const AbiBuild& build) {
  const auto copy = [](char* to, size_t room, std::string_view from) {
    for (size_t i = 0; i + 1 < room && i < from.size(); ++i) to[i] = from[i];
  };
  AbiTag tag;
  tag.tag_size = sizeof(AbiTag);
  tag.cxx11_abi = _GLIBCXX_USE_CXX11_ABI;
  tag.gxx_abi_version = __GXX_ABI_VERSION;
#ifdef _GLIBCXX_DEBUG
  tag.build_flags |= kBuildDebugStl;
#endif
#ifdef __has_feature  // clang
  if (__has_feature(address_sanitizer)) tag.build_flags |= kBuildAddressSanitizer;
  if (__has_feature(thread_sanitizer)) tag.build_flags |= kBuildThreadSanitizer;
#endif
#ifdef __SANITIZE_ADDRESS__  // g++
  tag.build_flags |= kBuildAddressSanitizer;
#endif
#ifdef __SANITIZE_THREAD__
  tag.build_flags |= kBuildThreadSanitizer;
#endif
  tag.cudart_major = build.cudart_major;
  tag.nccl_major = build.nccl_major;
  copy(tag.interface_hash, sizeof tag.interface_hash, ATTNMUX_INTERFACE_HASH);
  copy(tag.torch_version, sizeof tag.torch_version, TORCH_VERSION);
#ifdef __clang__
  copy(tag.compiler, sizeof tag.compiler, __VERSION__);  // "Clang 14.0.6 ..." already names itself
#else
  copy(tag.compiler, sizeof tag.compiler, "g++ " __VERSION__);
#endif
  copy(tag.sm_list, sizeof tag.sm_list, build.sm_list);
  return tag;
}

// What this core library was built with; its CUDA and NCCL are those that the pinned LibTorch brings.
ATTNMUX_API const AbiTag& host_abi_tag();

// Reads the tag from the file without loading it. Throws Error: kNotFound, kNotElf, kNoTag, kTagCorrupt.
ATTNMUX_API AbiTag read_abi_tag(const std::string& file);

// One field that keeps a plugin from being loaded.
struct AbiMismatch {
  std::string field;  // "torch_version"
  std::string host;
  std::string plugin;
  std::string consequence;
  std::string remedy;
};

// Every mismatch; empty: the plugin may be loaded. There is no switch that ignores one.
ATTNMUX_API std::vector<AbiMismatch> compare_abi(const AbiTag& host, const AbiTag& plugin);

// All of them in one message that begins with the file's name.
ATTNMUX_API std::string describe(const std::string& file, const std::vector<AbiMismatch>& mismatches);

// Field names and values of one tag, in the order in which compare_abi checks them, then those that are only shown.
struct AbiFieldText {
  std::string field;
  std::string value;
};
ATTNMUX_API std::vector<AbiFieldText> abi_fields(const AbiTag& tag);

}  // namespace attnmux
