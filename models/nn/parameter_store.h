// The parameters of a model by their Hugging Face names.
//
//   ParameterStore store = ParameterStore::load("models/smollm2", model_parameters(config), {.dtype = at::kFloat});
//   const at::Tensor& weight = store.at("model.norm.weight");
//
// The model's modules hold the same tensors (shared storage): updating a parameter in place updates the model.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace attnmux {

// What a model expects to find.
struct ParameterSpec {
  std::string name;            // "model.layers.0.self_attn.q_proj.weight"
  std::vector<int64_t> shape;  // [out, in] for weights of linear layers
  std::string stored_as = {};  // another name that checkpoints may give it; empty: none
};

// A checkpoint's tensor that is no parameter, yet no error: transformers ignores it as well.
struct IgnoredTensor {
  std::string suffix;   // "rotary_emb.inv_freq"
  std::string same_as;  // non-empty: the name of the parameter that it must equal ("lm_head.weight" of a tied model)
};

struct LoadOptions {
  at::ScalarType dtype = at::kFloat;
  // Parameters want gradients (fp32 ones of bf16 and fp16, too) and are copied out of the mapped files, into memory
  // aligned alike in every run. Otherwise those of the wanted dtype stay views of the mapped files.
  bool training = false;
};

class ParameterStore {
 public:
  // Throws one Error(kBadFile) that lists every missing, surplus and misshapen parameter and every dtype that is not
  // floating point, each with the file that holds it.
  static ParameterStore load(const std::string& dir, const std::vector<ParameterSpec>& specs,
                             const std::vector<IgnoredTensor>& ignored, const LoadOptions& options);

  void add(const std::string& name, at::Tensor parameter);
  const at::Tensor& at(const std::string& name) const;              // Error(kInternal) for an unknown name
  const std::vector<std::string>& names() const { return names_; }  // in the model's order
  std::vector<at::Tensor> tensors() const;                          // likewise
  int64_t element_count() const;

 private:
  std::vector<std::string> names_;
  std::map<std::string, at::Tensor> parameters_;
};

}  // namespace attnmux
