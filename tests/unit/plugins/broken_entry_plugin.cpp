// Entries written by hand, each wrong in the way that DEFECT_* names.
#include "stub_backend.h"

using attnmux::AbiTag;
using attnmux::HostApi;
using attnmux::PluginEntry;
using attnmux::Registrar;
using attnmux::StatusCode;

namespace {

[[gnu::used, gnu::section(".attnmux.abi")]] constinit const AbiTag tag = attnmux::make_abi_tag({});

#ifndef DEFECT_NO_ENTRY
[[maybe_unused]] StatusCode init(const HostApi*, Registrar*) noexcept { return StatusCode::kOk; }  // registers nothing

#ifdef DEFECT_OTHER_TAG
constexpr AbiTag other_tag() {
  AbiTag other = attnmux::make_abi_tag({});
  other.sm_list[0] = '9';
  return other;
}
constexpr AbiTag entry_tag = other_tag();
#else
constexpr const AbiTag& entry_tag = tag;
#endif

#ifdef DEFECT_NULL_ID
constexpr const char* kId = nullptr;
#else
constexpr const char* kId = "broken";
#endif

#ifdef DEFECT_SHORT_ENTRY
constexpr uint32_t kEntrySize = sizeof(PluginEntry) - 8;
#else
constexpr uint32_t kEntrySize = sizeof(PluginEntry);
#endif
#endif

}  // namespace

#ifndef DEFECT_NO_ENTRY
extern "C" ATTNMUX_API const PluginEntry* attnmux_plugin_entry_v1() noexcept {
#ifdef DEFECT_NULL_ENTRY
  return nullptr;
#else
  static constexpr PluginEntry entry{kEntrySize, &entry_tag, kId, "1.2.3", "attnmux tests", &init};
  return &entry;
#endif
}
#endif
