#include "attnmux/plugin.h"
#include "reference/reference_backend.h"

namespace {

void register_reference(const attnmux::HostApi&, attnmux::Registrar& registrar) {
  registrar.add_backend(attnmux::make_reference_backend());
}

}  // namespace

ATTNMUX_PLUGIN("reference", ATTNMUX_VERSION, "attnmux", register_reference)
