#include "attnmux/plugin.h"
#include "common/by_device.h"
#include "flash/flash_backend.h"
#include "flash/flash_cuda.h"

namespace {

void register_flash(const attnmux::HostApi&, attnmux::Registrar& registrar) {
  registrar.add_backend(attnmux::make_by_device(attnmux::make_flash_backend(), attnmux::make_flash_cuda_backend()));
}

}  // namespace

ATTNMUX_PLUGIN("flash", ATTNMUX_VERSION, "attnmux", register_flash)
