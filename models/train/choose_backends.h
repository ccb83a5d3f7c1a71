// Which backend each attention module of a run gets: before weights load, for training and for `attnmux explain`.
//
//   SelectionPolicy policy = training_policy(config);
//   load_plugins({.files = policy.plugins}, registry);
//   SelectionTable table = choose_backends(config, policy, registry);
//
// Pure but for reading config.json, any thread.
#pragma once

#include "attnmux/registry.h"
#include "attnmux/selection.h"
#include "models/train/train_config.h"

namespace attnmux {

// The rules of the run's TOML, then what follows from attn_implementation. Errors: those of resolve_policy().
SelectionPolicy training_policy(const TrainConfig& config);

// Errors: those of read_model_config() and select().
SelectionTable choose_backends(const TrainConfig& config, const SelectionPolicy& policy,
                               const PluginRegistry& registry);

}  // namespace attnmux
