// The project's CPU backends in a registry, without loading plugins.
#pragma once

#include <string>
#include <vector>

#include "attnmux/registry.h"
#include "attnmux/selection.h"
#include "backends/flash/flash_backend.h"
#include "backends/reference/reference_backend.h"
#include "backends/sdpa/sdpa_backend.h"
#include "backends/tiled_cpu/magi_backend.h"

namespace attnmux::testing {

inline PluginRegistry cpu_backends() {
  PluginRegistry registry;
  registry.add("reference", make_reference_backend(), {});
  registry.add("sdpa", make_sdpa_backend(), {});
  registry.add("flash", make_flash_backend(), {});
  registry.add("magi", make_magi_backend(), {});
  return registry;
}

// Every attention module on one backend.
inline SelectionPolicy all_on(const std::string& backend) {
  return {.rules = {{.match = "**", .backend = backend, .origin = "test"}}};
}

}  // namespace attnmux::testing
