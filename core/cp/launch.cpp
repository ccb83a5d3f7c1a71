#include "attnmux/launch.h"

#include <charconv>
#include <cstdlib>
#include <exception>
#include <limits>

#include "attnmux/error.h"
#include "rank_error.h"

namespace attnmux {
namespace {

// How one launcher tells a process its rank.
struct Family {
  const char* launcher;
  const char* rank;
  const char* size;
  const char* local_rank;
};

constexpr Family kTorchrun{"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK"};
constexpr Family kOpenMpi{"mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"};

// srun counts a step's tasks in a variable of its own; SLURM_NTASKS may be the whole job's.
Family slurm(const Variables& variables) {
  return {"srun", "SLURM_PROCID", variables("SLURM_STEP_NUM_TASKS") ? "SLURM_STEP_NUM_TASKS" : "SLURM_NTASKS",
          "SLURM_LOCALID"};
}

int32_t number(const std::string& name, const std::string& text, int32_t least, int32_t most) {
  int32_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || value < least || value > most) {
    throw Error(ErrorCode::kUsage, name + "=" + text + ": it must be a whole number from " + std::to_string(least) +
                                       " to " + std::to_string(most) +
                                       ". Start through the launcher, or set it right, or unset it");
  }
  return value;
}

std::optional<LaunchedRank> read(const Family& family, const Variables& variables) {
  const std::optional<std::string> rank = variables(family.rank);
  const std::optional<std::string> size = variables(family.size);
  if (!rank && !size) return std::nullopt;
  if (!rank || !size) {
    const char* set = rank ? family.rank : family.size;
    const char* missing = rank ? family.size : family.rank;
    throw Error(ErrorCode::kUsage, std::string(set) + "=" + (rank ? *rank : *size) + " is set and " + missing +
                                       " is not. Start through " + family.launcher + ", set both, or unset both");
  }
  constexpr int32_t kMost = std::numeric_limits<int32_t>::max();
  LaunchedRank launched{.launcher = family.launcher};
  launched.size = number(family.size, *size, 1, kMost);
  launched.rank = number(family.rank, *rank, 0, launched.size - 1);
  if (const auto local = variables(family.local_rank))
    launched.local_rank = number(family.local_rank, *local, 0, kMost);
  launched.described = std::string(family.rank) + "=" + *rank + ", " + family.size + "=" + *size;
  return launched;
}

}  // namespace

std::optional<std::string> environment_variable(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  if (value == nullptr || *value == '\0') return std::nullopt;
  return value;
}

std::optional<LaunchedRank> launched_rank(const Variables& variables) {
  std::optional<LaunchedRank> launched = read(kTorchrun, variables);
  // torchrun within mpirun or srun, one task a host, has a world of its own. Set by hand, RANK is a copy of theirs.
  const bool by_torchrun = launched && variables("TORCHELASTIC_RUN_ID");
  if (!by_torchrun) {
    std::optional<LaunchedRank> outer = read(kOpenMpi, variables);
    // A batch script has SLURM_PROCID=0, too; srun alone makes steps. mpirun within a job ignores the rank in it.
    if (!outer && variables("SLURM_STEP_ID")) outer = read(slurm(variables), variables);
    if (launched && outer && (launched->rank != outer->rank || launched->size != outer->size)) {
      throw Error(ErrorCode::kUsage, launched->described + " and " + outer->described + " (" + outer->launcher +
                                         ") contradict each other: unset RANK and WORLD_SIZE, or make them the same");
    }
    if (outer) launched = outer;
  }
  if (!launched) return std::nullopt;
  launched->master_addr = variables("MASTER_ADDR").value_or("");
  if (const auto port = variables("MASTER_PORT")) launched->master_port = number("MASTER_PORT", *port, 1, 65535);
  return launched;
}

void run_launched_rank(const CpGroupFactory& transport, const CpGroupOptions& options,
                       const std::function<void(CpGroup& group)>& body) {
  const std::shared_ptr<CpGroup> group = transport.connect(options);
  try {
    body(*group);
  } catch (...) {
    const Error error = as_error(std::current_exception());
    group->abort(error.what());
    if (group->size() == 1) throw error;
    throw of_rank(group->rank(), group->size(), error);
  }
}

}  // namespace attnmux
