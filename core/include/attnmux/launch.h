// Which rank of which launch this process is: the variables of torchrun, OpenMPI and Slurm, read in this one place.
//
//   if (const std::optional<LaunchedRank> launched = launched_rank()) {
//     launched->rank;   // of launched->size, started by launched->launcher
//   }
//
//   run_launched_rank(*registry.cp_group("mpi"), options, [&](CpGroup& group) { ... });
//
// Any thread, as long as nobody changes the environment. The innermost launcher counts: torchrun within mpirun within
// srun. Variables of the same launch that contradict each other are an error, never a guess.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "attnmux/cp_group.h"
#include "attnmux/export.h"

namespace attnmux {

struct LaunchedRank {
  std::string launcher;  // "torchrun", "mpirun", "srun"
  int32_t rank = 0;
  int32_t size = 1;
  int32_t local_rank = -1;  // on its host; -1: the launcher did not say
  std::string master_addr;  // where ranks meet; empty: not given
  int32_t master_port = 0;  // 0: not given
  std::string described;    // "RANK=1, WORLD_SIZE=4": what was read, for messages
};

// An environment variable's value; nothing where it is not set or empty.
using Variables = std::function<std::optional<std::string>(const std::string& name)>;
ATTNMUX_API std::optional<std::string> environment_variable(const std::string& name);

// Nothing where no launcher started this process. torchrun: RANK, WORLD_SIZE, LOCAL_RANK, which others set by hand,
// too; OpenMPI: OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK; Slurm, in a step of srun: SLURM_PROCID, SLURM_STEP_NUM_TASKS
// or SLURM_NTASKS, SLURM_LOCALID. Throws Error(kUsage): one of a pair without the other, a value that is no number in
// its range, RANK and WORLD_SIZE set by hand that differ from mpirun's or srun's; names variables and values.
ATTNMUX_API std::optional<LaunchedRank> launched_rank(const Variables& variables = environment_variable);

// run_threads_group() (cp_group.h) for ranks that are processes: connects and runs `body` as the rank that this process
// is. When it throws, the other ranks' calls fail at once with its reason; then the error is thrown here, "rank 2 of
// 4: ..." in front (one rank: as it is).
ATTNMUX_API void run_launched_rank(const CpGroupFactory& transport, const CpGroupOptions& options,
                                   const std::function<void(CpGroup& group)>& body);

}  // namespace attnmux
