// What the tensors of a case hold.
//
//   Inputs in = inputs_of(c, mask);      // q, k, v, dout in the case's dtype, on the CPU, contiguous
//
// Patterns, each chosen so that one kind of mistake stands out:
//   randn           about normal, softmax_scale 0.8 / sqrt(d): not the default, so that ignoring it shows
//   onehot          v[j] is 1 in element j mod dv and 0 elsewhere: an output names the keys that it saw
//   const           v is 1: every row's output is 1, whatever its scores; the gradients of q and k are 0
//   large           scores of +-150, beyond what exp takes in fp32
//   bait            keys just outside the mask would dominate their rows if they were seen
//   merge           scores around 40, v +1 in the first half of the keys and -1 in the second
//   scale-zero, scale-negative   randn with another softmax_scale
#pragma once

#include <string>

#include "conformance/case.h"
#include "conformance/case_mask.h"
#include "oracle/attention_oracle.h"

namespace attnmux::conformance {

using Inputs = testing::OracleInputs;

void require_values(const std::string& values);  // throws Error(kUsage) for an unknown pattern

Inputs inputs_of(const Case& c, const CaseMask& mask);

}  // namespace attnmux::conformance
