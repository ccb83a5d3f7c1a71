// Entries and tags that are wrong, each in the way that DEFECT_* names: refused before any code of the plugin runs, or
// as soon as its entry is looked at.
#include "attnmux/plugin.h"

using attnmux::AbiTag;
using attnmux::HostApi;
using attnmux::PluginEntry;
using attnmux::Registrar;
using attnmux::StatusCode;

#ifdef DEFECT_UNDEFINED_SYMBOL
namespace attnmux {
StatusCode defined_by_nobody(Registrar* registrar);
}
#endif

namespace {

constexpr AbiTag wrong_tag() {
  AbiTag tag = attnmux::make_abi_tag({});
#ifdef DEFECT_ABI_MAJOR
  tag.abi_major += 1;
#endif
#ifdef DEFECT_ABI_MINOR
  tag.abi_minor += 1;
#endif
#ifdef DEFECT_TORCH
  tag.torch_version[0] = '1';
#endif
#ifdef DEFECT_CXX11
  tag.cxx11_abi ^= 1;
#endif
#ifdef DEFECT_HEADERS
  tag.interface_hash[0] = tag.interface_hash[0] == '0' ? '1' : '0';
#endif
  return tag;
}

#if defined(DEFECT_TRUNCATED_TAG)
[[gnu::used, gnu::section(".attnmux.abi")]] constinit const char half[16] = "ATTNMUX";
constexpr AbiTag tag = wrong_tag();
#elif defined(DEFECT_NO_TAG)
constexpr AbiTag tag = wrong_tag();
#else
[[gnu::used, gnu::section(".attnmux.abi")]] constinit const AbiTag tag = wrong_tag();
#endif

#ifdef DEFECT_OTHER_TAG
constexpr AbiTag other_tag() {
  AbiTag other = wrong_tag();
  other.sm_list[0] = '9';
  return other;
}
constexpr AbiTag entry_tag = other_tag();
#else
[[maybe_unused]] constexpr const AbiTag& entry_tag = tag;
#endif

[[maybe_unused]] StatusCode init(const HostApi*, Registrar* registrar) noexcept {
#ifdef DEFECT_UNDEFINED_SYMBOL
  return attnmux::defined_by_nobody(registrar);
#else
  return StatusCode::kOk;
#endif
}

}  // namespace

#ifndef DEFECT_NO_ENTRY
extern "C" ATTNMUX_API const PluginEntry* attnmux_plugin_entry_v1() noexcept {
  static constexpr PluginEntry entry{sizeof(PluginEntry), &entry_tag, "broken", "1", "attnmux tests", &init};
  return &entry;
}
#endif
