// A request that demands determinism: the same call gives the same bits.
#include <ATen/ATen.h>

#include <cstring>

#include "conformance/families.h"

namespace attnmux::conformance {
namespace {

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.cpu().contiguous(), y = b.cpu().contiguous();
  return x.sizes() == y.sizes() && x.scalar_type() == y.scalar_type() &&
         (x.nbytes() == 0 || std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0);
}

}  // namespace

void run_determinism(const Subject& subject, const Case& c, CaseResult& result) {
  const Setup setup(c);
  if (!takes(subject, setup, result)) return;
  const Inputs in = on_device(setup.in, subject.device);
  constexpr int kRuns = 4;
  std::optional<ForwardResult> first;
  std::optional<BackwardResult> first_grads;
  for (int run = 0; run < kRuns; ++run) {
    const auto got = forward(subject, c, setup.mask.spec, in, Refusal::kForbidden, result);
    if (!got) return;
    if (!first) first = got;
    const auto equal = [&](const char* name, const at::Tensor& a, const at::Tensor& b) {
      if (!same_bits(a, b)) {
        result.fail(Check::kDeterminism, std::string(name) + " of run " + std::to_string(run) + " has other bits");
      }
    };
    equal("out", first->out, got->out);
    equal("lse", first->lse, got->lse);
    if (!is_training(c)) continue;
    const auto grads = backward(subject, c, setup.mask.spec, in, *first, Refusal::kForbidden, result);
    if (!grads) return;
    if (!first_grads) first_grads = grads;
    equal("dq", first_grads->dq, grads->dq);
    equal("dk", first_grads->dk, grads->dk);
    equal("dv", first_grads->dv, grads->dv);
  }
}

}  // namespace attnmux::conformance
