// Log-likelihoods of a checkpoint: `attnmux score`.
//
//   ScoreInput input = read_score_text("models/smollm2", "book.txt");
//   ScoreResult result = score("models/smollm2", input, policy, registry, {.logits_file = "logits.safetensors"});
//
// Pure but for the logits file, any thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "attnmux/mask.h"
#include "attnmux/registry.h"
#include "attnmux/selection.h"
#include "models/train/score_input.h"
#include "models/train/score_progress.h"

namespace attnmux {

struct ScoreOptions {
  at::ScalarType dtype = at::kFloat;
  std::optional<AttnMaskSpec> mask;  // instead of the input's
  std::string logits_file;           // empty: none
  int64_t cp = 1;                    // ranks of this process that share sequence and images; and the weights
  int64_t chunk_size = 512;          // tokens that stay together when it is dealt out
  ProgressCallback on_progress = {};
};

struct DocumentScore {
  int64_t tokens = 0;
  std::optional<double> loss;  // mean over its predicted tokens, nats; nullopt where nothing is predicted
};

struct ScoreResult {
  int64_t tokens = 0;
  double loss = 0;  // mean over all predicted tokens
  std::vector<DocumentScore> documents;
  at::Tensor token_losses;  // [tokens] fp32, 0 where nothing is predicted
};

// Logits go to `logits_file` ("logits" [tokens, vocab] fp32) chunk by chunk as they are computed; the file appears when
// it is complete. Throws Error(kInvalidArgument) naming the input's file for a mask of another length, for an input
// that predicts nothing, and for ids, labels, images and positions that do not fit the model or the tokens;
// Error(kNonFinite) naming the first module whose output is not finite, and then no file appears.
ScoreResult score(const std::string& model_dir, const ScoreInput& input, const SelectionPolicy& policy,
                  const PluginRegistry& registry, const ScoreOptions& options);

// {"tokens", "loss", "perplexity", "documents": [{"tokens", "loss"}]} on one line.
std::string to_json(const ScoreResult& result);

}  // namespace attnmux
