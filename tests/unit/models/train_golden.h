// Training steps compared with the same loop in torch (tests/golden/make_model_goldens.py).
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "models/families/families.h"
#include "models/train/train_step.h"
#include "tests/common/cpu_backends.h"

namespace attnmux::testing {

inline DocumentPacker::Documents golden_documents(const SafetensorsFile& golden) {
  const at::Tensor tokens = golden.tensor("tokens").to(at::kLong);
  const at::Tensor lengths = golden.tensor("lengths").to(at::kLong);
  auto documents = std::make_shared<std::vector<TokenizedDocument>>();
  const int64_t* at = tokens.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < lengths.numel(); ++i) {
    const int64_t length = lengths[i].item<int64_t>();
    documents->push_back({.ids = {at, at + length}});
    at += length;
  }
  return documents;
}

// Runs the first `steps` steps and expects losses within `tolerance` and gradient norms within a thousandth.
inline void expect_steps_equal_torch(const std::string& model_dir, const std::string& golden_file,
                                     const std::string& backend, int64_t steps, double tolerance) {
  const SafetensorsFile golden = SafetensorsFile::open(golden_file);
  const auto number = [&](const char* key) { return std::stod(golden.metadata().at(key)); };
  const auto seq_len = static_cast<int64_t>(number("seq_len"));
  const AttentionUse use{.masks = {MaskFamily::kVarlenCausal}, .max_tokens = seq_len, .training = true};
  const auto table = std::make_shared<const SelectionTable>(
      select(all_on(backend), attention_modules(read_model_config(model_dir), use), cpu_backends()));
  const std::unique_ptr<CausalLm> model = load_causal_lm(model_dir, {.training = true});
  AdamW optimizer(model->parameters(), {.weight_decay = number("weight_decay")});
  DocumentPacker packer(golden_documents(golden), {.seq_len = seq_len, .shuffle = false});
  TrainState state{.run = {.model = *model,
                           .mesh = single_rank_mesh(),
                           .table = table,
                           .cache = std::make_shared<PreparedCache>(),
                           .plans = std::make_shared<PlanCache>(),
                           .sharding = {}},
                   .optimizer = optimizer,
                   .data = packer,
                   .schedule = {.peak = number("lr"),
                                .warmup_steps = static_cast<int64_t>(number("warmup_steps")),
                                .steps = static_cast<int64_t>(number("steps"))},
                   .grad_clip = number("grad_clip")};
  const at::Tensor losses = golden.tensor("losses");
  const at::Tensor norms = golden.tensor("grad_norms");
  for (int64_t step = 1; step <= steps; ++step) {
    const StepMetrics metrics = train_step(state, step);
    EXPECT_NEAR(metrics.loss, losses[step - 1].item<double>(), tolerance) << "step " << step;
    EXPECT_NEAR(metrics.grad_norm, norms[step - 1].item<double>(), 1e-3 * metrics.grad_norm) << "step " << step;
  }
}

}  // namespace attnmux::testing
