// Where modules take their parameters from while a model is put together: each asks by name and shape.
//
//   Qwen2Model model(config, source, "model");              // every Linear and RMSNorm in it calls source.take(...)
//
// The same constructors list a model's parameters (ParameterList) and build it from loaded ones (LoadedParameters), so
// that names and shapes are written once, where they are used.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

#include "models/nn/parameter_store.h"

namespace attnmux {

class ParameterSource {
 public:
  virtual ~ParameterSource() = default;
  virtual at::Tensor take(const std::string& name, const std::vector<int64_t>& shape) = 0;
};

// Notes what is asked for and gives undefined tensors: the model is thrown away, its list of parameters kept.
class ParameterList : public ParameterSource {
 public:
  at::Tensor take(const std::string& name, const std::vector<int64_t>& shape) override {
    specs_.push_back({name, shape});
    return {};
  }
  std::vector<ParameterSpec> finish() && { return std::move(specs_); }

 private:
  std::vector<ParameterSpec> specs_;
};

// REQUIRES: the store holds every parameter that is asked for, in its shape; it outlives this object, not the model.
class LoadedParameters : public ParameterSource {
 public:
  explicit LoadedParameters(const ParameterStore& store) : store_(store) {}
  at::Tensor take(const std::string& name, const std::vector<int64_t>& /*shape*/) override { return store_.at(name); }

 private:
  const ParameterStore& store_;
};

}  // namespace attnmux
