#include "attnmux/plugin.h"
#include "common/by_device.h"
#include "sdpa/sdpa_backend.h"
#include "sdpa/sdpa_cuda.h"

namespace {

void register_sdpa(const attnmux::HostApi&, attnmux::Registrar& registrar) {
  registrar.add_backend(attnmux::make_by_device(attnmux::make_sdpa_backend(), attnmux::make_sdpa_cuda_backend()));
}

}  // namespace

ATTNMUX_PLUGIN("sdpa", ATTNMUX_VERSION, "attnmux", register_sdpa)
