// Does an input fit its model? Asked before anything runs, and over a group of ranks before the first exchange.
//
//   check_input(model.config(), input);
//
// Pure functions, any thread.
#pragma once

#include "models/io/model_config.h"
#include "models/nn/causal_lm.h"

namespace attnmux {

// Throws Error(kInvalidArgument) naming what was found and what is expected: neither or both of input_ids and
// inputs_embeds, positions of another shape, images for a model that reads none, patches that are not those of the
// grids, image tokens that are not as many as the images make; Error(kUnsupported) for videos.
void check_input(const ModelConfig& config, const ModelInput& input);

}  // namespace attnmux
