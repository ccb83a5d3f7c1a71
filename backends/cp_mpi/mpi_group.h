// "mpi": ranks as processes that mpirun or srun started, CPU tensors.
//
// One thread of each process makes all MPI calls (mpi_runtime.h); groups, subgroups and works hand it what to do, so
// that bytes move while the rank computes. Messages are Isend and Irecv of bytes between pairs that exchange something,
// each behind a header by which the receiver sees that both make the same call. Subgroups are numbers in the messages'
// tags: no call of MPI blocks, so every call keeps its deadline.
#pragma once

#include <memory>

#include "attnmux/cp_group.h"

namespace attnmux {

std::shared_ptr<const CpGroupFactory> make_mpi_group_factory();

// At the end of the program, in the thread that connected. Ranks that all came to their end leave MPI together; where
// one did not in time, the launch is aborted, so that mpirun ends.
void shutdown_mpi() noexcept;

}  // namespace attnmux
