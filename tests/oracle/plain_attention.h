// Attention in a low precision as one writes it without care: every intermediate is a tensor of that dtype. Its error
// is the yardstick for backends in bf16 and fp16.
#pragma once

#include "attnmux/mask.h"
#include "oracle/attention_oracle.h"

namespace attnmux::testing {

struct PlainResult {
  at::Tensor out, lse, dq, dk, dv;  // fp32 (fp64 for fp64 inputs), rounded to the dtype of q
};

// Products accumulate in fp32 and are rounded when they are stored. Keys and values are repeated for the query heads of
// a group, their gradients summed over it. delta = rowsum(dout * out) from the rounded out, for a backward that is
// given forward's results can have no better one.
PlainResult plain_attention(const AttnMaskSpec& mask, const OracleInputs& inputs);

}  // namespace attnmux::testing
