#include "attnmux/plugin.h"
#include "flash/flash_backend.h"

namespace {

void register_flash(const attnmux::HostApi&, attnmux::Registrar& registrar) {
  registrar.add_backend(attnmux::make_flash_backend());
}

}  // namespace

ATTNMUX_PLUGIN("flash", ATTNMUX_VERSION, "attnmux", register_flash)
