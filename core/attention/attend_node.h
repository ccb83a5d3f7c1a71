// The one autograd node of an attention call, whoever computes it.
#pragma once

#include <functional>

#include "attnmux/attend.h"
#include "backend_call.h"

namespace attnmux {

struct AttendNode {
  BackendCall call;
  std::function<BackwardResult(const BackwardArgs& args)> backward;
  std::function<void()> on_backward;
  bool collective = false;  // other ranks wait for this one's part: it runs even where no gradient of `out` came
};

// Makes result.out depend on q, k and v. REQUIRES: wants_gradient().
void record(AttendNode node, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, ForwardResult& result);

// Would a gradient be recorded?
bool wants_gradient(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

}  // namespace attnmux
