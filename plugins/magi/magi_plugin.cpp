#include "attnmux/plugin.h"
#include "tiled_cpu/magi_backend.h"

namespace {

void register_magi(const attnmux::HostApi&, attnmux::Registrar& registrar) {
  registrar.add_backend(attnmux::make_magi_backend());
}

}  // namespace

ATTNMUX_PLUGIN("magi", ATTNMUX_VERSION, "attnmux", register_magi)
