#include "models/train/check_launch.h"

#include <string>

#include "attnmux/error.h"

namespace attnmux {

void check_launch(const TrainConfig& config, const std::optional<LaunchedRank>& launched) {
  if (!launched) return;
  const ParallelSection& parallel = config.parallel;
  if (parallel.group == "threads") {
    if (launched->size == 1) return;
    // Each process would train the same run into the same folder.
    throw Error(ErrorCode::kUsage, config.file + ": parallel.group = \"threads\", and " + launched->launcher +
                                       " has started several processes (" + launched->described +
                                       "); start one without it, or write group = \"mpi\"");
  }
  const int64_t ranks = parallel.dp * parallel.cp;
  if (launched->size == ranks) return;
  throw Error(ErrorCode::kUsage, config.file + ": parallel.dp = " + std::to_string(parallel.dp) +
                                     " and parallel.cp = " + std::to_string(parallel.cp) + " make " +
                                     std::to_string(ranks) + " ranks, and " + launched->launcher + " has started " +
                                     std::to_string(launched->size) + " (" + launched->described + "); start " +
                                     std::to_string(ranks) + " processes, or change parallel.dp or parallel.cp");
}

}  // namespace attnmux
