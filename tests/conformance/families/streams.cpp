// A GPU's stream of the caller's choice: the call is ordered behind what was queued on it before.
#include <ATen/ATen.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "conformance/families.h"

namespace attnmux::conformance {

void run_streams(const Subject& subject, const Case& c, CaseResult& result) {
  const Setup setup(c);
  if (!takes(subject, setup, result)) return;
  if (!subject.device.is_cuda()) {
    result.suite_error("streams are asked for on a GPU only; pass --device cuda");
    return;
  }
  const c10::impl::VirtualGuardImpl devices(at::kCUDA);
  const c10::Stream stream = devices.getNewStream(subject.device);
  const Inputs ready = on_device(setup.in, subject.device);
  const c10::StreamGuard guard(stream);
  // Work that takes a while, then the inputs: a kernel on another stream would read them before they are written.
  at::Tensor busy = at::ones({4096, 4096}, ready.q.options().dtype(at::kFloat));
  for (int i = 0; i < 8; ++i) busy = at::matmul(busy, busy) * 1e-4;
  Inputs in = ready;
  for (at::Tensor* tensor : {&in.q, &in.k, &in.v}) *tensor = tensor->clone();
  run_and_compare(subject, setup, in, kOut | kLseTensor, Refusal::kForbidden, result);
}

}  // namespace attnmux::conformance
