# ATTNMUX_WITH_MPI is ON where OpenMPI is found; attnmux::mpi is what cp_mpi links.

set(MPI_CXX_SKIP_MPICXX ON)  # MPI's C interface alone
find_package(MPI QUIET COMPONENTS CXX)
set(ATTNMUX_WITH_MPI ${MPI_CXX_FOUND})
if(ATTNMUX_WITH_MPI)
  add_library(attnmux_mpi INTERFACE)
  add_library(attnmux::mpi ALIAS attnmux_mpi)
  # The compiler wrapper of OpenMPI also names its C++ library, which nothing here needs.
  target_link_libraries(attnmux_mpi INTERFACE MPI::MPI_CXX)
  target_link_options(attnmux_mpi INTERFACE LINKER:--as-needed)
endif()
message(STATUS "attnmux: MPI ${ATTNMUX_WITH_MPI}")
