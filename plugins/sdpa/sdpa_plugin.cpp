#include "attnmux/plugin.h"
#include "sdpa/sdpa_backend.h"

namespace {

void register_sdpa(const attnmux::HostApi&, attnmux::Registrar& registrar) {
  registrar.add_backend(attnmux::make_sdpa_backend());
}

}  // namespace

ATTNMUX_PLUGIN("sdpa", ATTNMUX_VERSION, "attnmux", register_sdpa)
