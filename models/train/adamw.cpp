#include "models/train/adamw.h"

#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <sstream>
#include <utility>

#include "attnmux/error.h"

namespace attnmux {

AdamW::AdamW(const ParameterStore& parameters, const AdamWOptions& options) : options_(options) {
  const at::NoGradGuard no_grad;
  for (const std::string& name : parameters.names()) {
    const at::Tensor& parameter = parameters.at(name);
    const at::Tensor master =
        parameter.scalar_type() == at::kFloat ? parameter.detach() : parameter.detach().to(at::kFloat);
    slots_.push_back({name, parameter, master, at::zeros_like(master), at::zeros_like(master)});
  }
}

double AdamW::gradient_norm() const {
  double squares = 0;
  for (const Slot& slot : slots_) {
    const at::Tensor& gradient = slot.parameter.grad();
    if (!gradient.defined()) throw Error(ErrorCode::kInternal, "parameter " + slot.name + " has received no gradient");
    const double norm = at::linalg_vector_norm(gradient).item<double>();
    squares += norm * norm;
  }
  return std::sqrt(squares);
}

void AdamW::step(double lr, double gradient_scale) {
  const at::NoGradGuard no_grad;
  ++steps_done_;
  // The fused operator divides gradients by this factor as it reads them, which spares a pass over them.
  const at::Tensor divisor = at::scalar_tensor(1.0 / gradient_scale, at::kFloat);
  for (const bool decayed : {true, false}) {
    std::vector<at::Tensor> masters, gradients, averages, squares, counts;
    for (const Slot& slot : slots_) {
      if ((slot.parameter.dim() >= 2) != decayed) continue;
      masters.push_back(slot.master);
      gradients.push_back(slot.parameter.grad().to(at::kFloat));
      averages.push_back(slot.exp_avg);
      squares.push_back(slot.exp_avg_sq);
      counts.push_back(at::scalar_tensor(static_cast<double>(steps_done_), at::kFloat));
    }
    if (masters.empty()) continue;
    at::_fused_adamw_(masters, gradients, averages, squares, /*max_exp_avg_sqs=*/{}, counts, lr, options_.beta1,
                      options_.beta2, decayed ? options_.weight_decay : 0.0, options_.eps, /*amsgrad=*/false,
                      /*maximize=*/false, divisor, /*found_inf=*/{});
  }
  for (Slot& slot : slots_) {
    if (!slot.master.is_alias_of(slot.parameter)) slot.parameter.detach().copy_(slot.master);
  }
}

void AdamW::clear_gradients() {
  for (Slot& slot : slots_) slot.parameter.mutable_grad().reset();
}

std::string AdamW::first_non_finite_gradient() const {
  for (const Slot& slot : slots_) {
    if (!at::isfinite(slot.parameter.grad()).all().item<bool>()) return slot.name;
  }
  return "";
}

std::vector<NamedTensor> AdamW::state() const {
  std::vector<NamedTensor> tensors;
  for (const Slot& slot : slots_) {
    tensors.push_back({"exp_avg." + slot.name, slot.exp_avg});
    tensors.push_back({"exp_avg_sq." + slot.name, slot.exp_avg_sq});
    if (!slot.master.is_alias_of(slot.parameter)) tensors.push_back({"master." + slot.name, slot.master});
  }
  return tensors;
}

void AdamW::load_state(const SafetensorsFile& file, int64_t steps_done) {
  std::string problems;
  for (const NamedTensor& wanted : state()) {
    if (!file.contains(wanted.name)) {
      problems += "\n  missing: " + wanted.name;
    } else if (file.info(wanted.name).shape != wanted.tensor.sizes().vec() ||
               file.info(wanted.name).dtype != at::kFloat) {
      problems += "\n  another shape or dtype: " + wanted.name;
    }
  }
  if (!problems.empty()) {
    throw Error(ErrorCode::kBadFile, file.path() + ": this is not the optimizer state of the model" + problems);
  }
  const at::NoGradGuard no_grad;
  for (const NamedTensor& wanted : state()) at::Tensor(wanted.tensor).copy_(file.tensor(wanted.name));
  steps_done_ = steps_done;
}

double clip_factor(double norm, double limit) {
  if (limit <= 0) return 1.0;
  return std::min(1.0, limit / (norm + 1e-6));
}

}  // namespace attnmux
