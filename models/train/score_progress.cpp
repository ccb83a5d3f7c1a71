#include "models/train/score_progress.h"

#include <algorithm>
#include <utility>

namespace attnmux {

ScoreProgress::ScoreProgress(const ModelConfig& config, int64_t tokens, ProgressCallback callback)
    : layers_(config.num_hidden_layers), tokens_(tokens), callback_(std::move(callback)) {
  const int64_t heads = 2 * config.num_attention_heads + 2 * config.num_key_value_heads;
  const int64_t of_a_layer = config.hidden_size * (heads * config.head_dim + 3 * config.intermediate_size);
  output_ = std::max<int64_t>(1, config.vocab_size * config.hidden_size / std::max<int64_t>(1, of_a_layer));
}

ModuleObserver ScoreProgress::layers() {
  if (!callback_) return {};
  return [this](const std::string& module_path, const at::Tensor&) {
    // Every family's layer begins with this norm.
    if (module_path.ends_with(".input_layernorm")) callback_(std::min(begun_++, layers_), layers_ + output_);
  };
}

void ScoreProgress::rows_done(int64_t rows) {
  if (callback_) callback_(layers_ + output_ * rows / tokens_, layers_ + output_);
}

}  // namespace attnmux
