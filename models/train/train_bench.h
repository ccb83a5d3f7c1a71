// The time of a training step, apart from any run folder: `attnmux bench train` and tests/bench/train_step.py.
//
//   TrainBench bench("models/smollm2", policy, registry, {.seq_len = 1024});
//   bench.step();                      // warm-up
//   double seconds = bench.step();
//
// The batch is one packed sequence of random tokens, the same in every step; the step is train_step() itself. One
// thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "attnmux/registry.h"
#include "attnmux/selection.h"
#include "models/data/packing.h"
#include "models/nn/causal_lm.h"
#include "models/train/adamw.h"
#include "models/train/train_step.h"

namespace attnmux {

struct TrainBenchOptions {
  int64_t seq_len = 1024;
  int64_t documents = 1;       // of equal length, packed
  std::string dtype = "fp32";  // fp32 | bf16
  bool activation_checkpointing = false;
};

class TrainBench {
 public:
  // Errors: those of loading a model and of selection; Error(kInvalidArgument) for an unknown dtype.
  TrainBench(const std::string& model_dir, const SelectionPolicy& policy, const PluginRegistry& registry,
             const TrainBenchOptions& options);

  // Seconds that one step took.
  double step();
  const StepMetrics& last() const { return last_; }
  // FLOPs of the matrix products of a step: 6 * parameters * tokens, and 12 * attended pairs * heads * head_dim a
  // layer (a forward pass takes a third of each).
  double flops() const { return flops_; }

 private:
  std::unique_ptr<CausalLm> model_;
  std::unique_ptr<AdamW> optimizer_;
  std::unique_ptr<DocumentPacker> packer_;
  std::unique_ptr<TrainState> state_;
  StepMetrics last_;
  double flops_ = 0;
};

}  // namespace attnmux
