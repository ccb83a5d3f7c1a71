// Has a launcher started the ranks that the config asks for?
//
//   check_launch(config, launched_rank());   // every process, before it reads anything else
#pragma once

#include <optional>

#include "attnmux/launch.h"
#include "models/train/train_config.h"

namespace attnmux {

// Throws Error(kUsage) naming the config's keys, the launcher's variables and what to change. A process without a
// launcher passes: the transport says how to start one where it connects.
void check_launch(const TrainConfig& config, const std::optional<LaunchedRank>& launched);

}  // namespace attnmux
