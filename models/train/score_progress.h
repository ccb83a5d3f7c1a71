// How far a score is: decoder layers first, then rows of logits, in one count.
//
//   ScoreProgress progress(config, tokens, [](int64_t done, int64_t total) { ... });
//   model.forward(input, step, {.observe = progress.layers()});
//
// One thread.
#pragma once

#include <cstdint>
#include <functional>

#include "models/io/model_config.h"
#include "models/nn/causal_lm.h"

namespace attnmux {

using ProgressCallback = std::function<void(int64_t done, int64_t total)>;

class ScoreProgress {
 public:
  ScoreProgress(const ModelConfig& config, int64_t tokens, ProgressCallback callback);

  // For a model's forward; empty where nobody listens. The ScoreProgress must outlive the call.
  ModuleObserver layers();
  void rows_done(int64_t rows);

 private:
  int64_t layers_, tokens_;
  int64_t output_;  // what the output weights take, in layers: by the number of weights
  int64_t begun_ = 0;
  ProgressCallback callback_;
};

}  // namespace attnmux
