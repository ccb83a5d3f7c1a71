// Calls at the edge of what can be asked, and calls after one that was refused.
#include <ATen/ATen.h>

#include "conformance/families.h"

namespace attnmux::conformance {

void run_errors(const Subject& subject, const Case& c, CaseResult& result) {
  const Setup setup(c);
  if (!takes(subject, setup, result)) return;
  const unsigned which = is_training(c) ? unsigned{kGrads} : kOut | kLseTensor;
  if (c.check == "empty" || c.check == "grad-empty") {  // no queries or no keys: right, or refused by an Error
    run_and_compare(subject, setup, which, Refusal::kAllowed, result);
  } else if (c.check == "scale" || c.check == "grad-scale") {
    run_and_compare(subject, setup, which, Refusal::kForbidden, result);
  } else {  // recovers
    // Strides that may be refused, then an ordinary call: it is right whatever the first did.
    CaseResult ignored;
    Inputs odd = on_device(setup.in, subject.device);
    odd.q = odd.q.permute({0, 2, 1}).contiguous().permute({0, 2, 1});
    odd.k = odd.k.slice(1, 0, 1).expand(odd.k.sizes());
    forward(subject, c, setup.mask.spec, odd, Refusal::kAllowed, ignored);
    run_and_compare(subject, setup, which, Refusal::kForbidden, result);
  }
}

}  // namespace attnmux::conformance
