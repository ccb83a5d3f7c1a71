#include "attnmux/plugin.h"
#include "cp_mpi/mpi_group.h"

namespace {

void register_mpi(const attnmux::HostApi&, attnmux::Registrar& registrar) {
  registrar.add_cp_group(attnmux::make_mpi_group_factory());
}

}  // namespace

ATTNMUX_PLUGIN("cp_mpi", ATTNMUX_VERSION, "attnmux", register_mpi, attnmux::shutdown_mpi)
