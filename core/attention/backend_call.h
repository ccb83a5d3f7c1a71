// A backend's calls as attention makes them: no gradients inside, refusals and lack of memory in the terms of Error,
// and what came back checked.
#pragma once

#include <memory>
#include <string>

#include "attnmux/attend.h"

namespace attnmux {

struct BackendCall {
  // Scale and names of a call with these options; q may be THD or BSHD.
  BackendCall(std::shared_ptr<const AttentionBackend> backend, const at::Tensor& q, const AttendOptions& options);

  std::shared_ptr<const AttentionBackend> backend;
  double softmax_scale;
  bool deterministic;
  std::string name;    // of the module; the backend's where it has none
  std::string prefix;  // of error messages

  std::shared_ptr<const Prepared> prepare(PreparedCache& cache, const AttnMaskSpec& mask, const at::Tensor& q,
                                          const at::Tensor& k, const at::Tensor& v) const;
  ForwardResult forward(const Prepared& prepared, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) const;
  BackwardResult backward(const Prepared& prepared, const BackwardArgs& args) const;
};

}  // namespace attnmux
