// AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019) over a model's parameters.
//
//   AdamW optimizer(model.parameters(), {.weight_decay = 0.01});
//   double norm = optimizer.gradient_norm();
//   optimizer.step(lr, /*gradient_scale=*/clip_factor(norm, 1.0));
//   optimizer.clear_gradients();
//
// The update is ATen's fused one. Parameters that are not fp32 keep fp32 master copies here; the model sees them
// rounded. One thread; the parameters are shared with the model and updated in place.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "models/io/safetensors.h"
#include "models/nn/parameter_store.h"

namespace attnmux {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.0;  // of parameters with two dimensions or more; norms and biases are not decayed
};

class AdamW {
 public:
  AdamW(const ParameterStore& parameters, const AdamWOptions& options);

  // L2 norm over all gradients. Throws Error(kInternal) naming a parameter without one.
  double gradient_norm() const;

  // One update with gradients times `gradient_scale`.
  void step(double lr, double gradient_scale);
  void clear_gradients();

  // Name of the first parameter whose gradient is not finite; empty: none.
  std::string first_non_finite_gradient() const;

  // Moments (and master copies), named "exp_avg.NAME", "exp_avg_sq.NAME", "master.NAME": what a checkpoint holds.
  std::vector<NamedTensor> state() const;
  // Throws Error(kBadFile) naming the file and each tensor that is missing or of another shape.
  void load_state(const SafetensorsFile& file, int64_t steps_done);

 private:
  struct Slot {
    std::string name;
    at::Tensor parameter;   // the model's
    at::Tensor master;      // fp32; the parameter itself where that is fp32
    at::Tensor exp_avg;     // fp32
    at::Tensor exp_avg_sq;  // fp32
  };
  std::vector<Slot> slots_;
  AdamWOptions options_;
  int64_t steps_done_ = 0;
};

// Factor that brings a gradient of norm `norm` down to `limit`, as torch.nn.utils.clip_grad_norm_; 1 for limit 0.
double clip_factor(double norm, double limit);

}  // namespace attnmux
