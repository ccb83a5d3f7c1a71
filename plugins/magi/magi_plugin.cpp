#include "attnmux/plugin.h"
#include "tiled_cpu/magi_backend.h"
#ifdef ATTNMUX_MAGI_SM90
#include "common/by_device.h"
#include "ffa_sm90/ffa_backend.h"
#endif

namespace {

void register_magi(const attnmux::HostApi&, attnmux::Registrar& registrar) {
#ifdef ATTNMUX_MAGI_SM90
  registrar.add_backend(attnmux::make_by_device(attnmux::make_magi_backend(), attnmux::ffa_sm90::make_backend()));
#else
  registrar.add_backend(attnmux::make_magi_backend());
#endif
}

}  // namespace

ATTNMUX_PLUGIN("magi", ATTNMUX_VERSION, "attnmux", register_magi)
