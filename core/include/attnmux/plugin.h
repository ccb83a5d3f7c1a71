// What a plugin library is made of: one entry function that the loader looks up, and the macro that writes it.
//
//   #include "attnmux/plugin.h"
//
//   static void register_acme(const attnmux::HostApi& host, attnmux::Registrar& registrar) {
//     registrar.add_backend(std::make_shared<AcmeBackend>());
//   }
//   ATTNMUX_PLUGIN("acme", "1.0.0", "Acme Corp", register_acme)
//
// Build it with attnmux_add_plugin(acme acme.cpp), see it in `attnmux plugins`. A C door and a C++ room: the entry and
// the structs below have a fixed layout and let nothing throw; behind them are ordinary C++ classes, trusted only
// because the tag (abi_tag.h) matched. The loader calls init once per process, on the thread that loads plugins, and
// shutdown at most once after each init, when no call into the plugin is running. A library is never unloaded.
#pragma once

#include <cstdint>
#include <memory>

#include "attnmux/abi_tag.h"
#include "attnmux/backend.h"
#include "attnmux/cp_group.h"
#include "attnmux/export.h"

namespace attnmux {

// Takes what a plugin offers while its init runs; nothing is kept if init fails.
class ATTNMUX_API Registrar {
 public:
  virtual ~Registrar();
  // Under its info().id, which is what configs name: lower-case letters, digits, `_` and `-`. Throws
  // Error(kInvalidArgument) on another id or a null backend, Error(kDuplicateId) on an id used before by this plugin.
  virtual void add_backend(std::shared_ptr<const AttentionBackend> backend) = 0;
  // A transport between processes, under its id(), which `[parallel] group` names. Ids and errors as for backends.
  virtual void add_cp_group(std::shared_ptr<const CpGroupFactory> group) = 0;
};

enum class StatusCode : int32_t { kOk = 0, kFailed = 1, kOutOfMemory = 2 };

struct HostApi {
  uint32_t struct_size;
  uint32_t abi_minor;
  // For a failing init: `text` is copied into the error that the user reads.
  void (*explain)(void* context, const char* text) noexcept;
  void* context;
};

struct PluginEntry {
  uint32_t struct_size;
  const AbiTag* abi;  // the object in section ".attnmux.abi"
  const char* id;     // of the plugin; what it registers has ids of its own
  const char* version;
  const char* vendor;
  StatusCode (*init)(const HostApi* host, Registrar* registrar) noexcept;
  void (*shutdown)() noexcept = nullptr;
};

using RegisterFunction = void (*)(const HostApi& host, Registrar& registrar);

// Calls `function` and turns c10::Error, std::bad_alloc and every other exception into a status with text.
ATTNMUX_API StatusCode run_register(RegisterFunction function, const HostApi* host, Registrar* registrar) noexcept;

}  // namespace attnmux

// Known to the build alone; attnmux_add_plugin(... CUDART 13 NCCL 2 SM 90a) sets them.
#ifndef ATTNMUX_PLUGIN_CUDART
#define ATTNMUX_PLUGIN_CUDART 0
#endif
#ifndef ATTNMUX_PLUGIN_NCCL
#define ATTNMUX_PLUGIN_NCCL 0
#endif
#ifndef ATTNMUX_PLUGIN_SM
#define ATTNMUX_PLUGIN_SM ""
#endif

// ATTNMUX_PLUGIN(id, version, vendor, register_function) or, with what must be undone at the end of the program,
// ATTNMUX_PLUGIN(id, version, vendor, register_function, shutdown_function). Once per library, at global scope.
#define ATTNMUX_PLUGIN(id, version, vendor, register_function, ...)                                      \
  namespace {                                                                                            \
  [[gnu::used, gnu::section(".attnmux.abi")]] constinit const ::attnmux::AbiTag attnmux_plugin_abi_tag = \
      ::attnmux::make_abi_tag({ATTNMUX_PLUGIN_CUDART, ATTNMUX_PLUGIN_NCCL, ATTNMUX_PLUGIN_SM});          \
  ::attnmux::StatusCode attnmux_plugin_init(const ::attnmux::HostApi* host,                              \
                                            ::attnmux::Registrar* registrar) noexcept {                  \
    return ::attnmux::run_register(&register_function, host, registrar);                                 \
  }                                                                                                      \
  }                                                                                                      \
  extern "C" ATTNMUX_API const ::attnmux::PluginEntry* attnmux_plugin_entry_v1() noexcept {              \
    static constexpr ::attnmux::PluginEntry entry{sizeof(::attnmux::PluginEntry),                        \
                                                  &attnmux_plugin_abi_tag,                               \
                                                  id,                                                    \
                                                  version,                                               \
                                                  vendor,                                                \
                                                  &attnmux_plugin_init __VA_OPT__(, &) __VA_ARGS__};     \
    return &entry;                                                                                       \
  }
