// What attention is, for tests: loops over the mask's predicate in float64, forward and backward by explicit formulas.
//
//   OracleResult want = oracle_attention(mask, {.q = q, .k = k, .v = v, .dout = dout, .softmax_scale = 0.125});
//
// Asks the mask nothing but allowed(q, k), so that it shares no code with range merging or planning, and uses no ATen
// arithmetic. Checked itself by finite differences and by hand-computed cases (attention_oracle_test.cpp).
#pragma once

#include <ATen/core/Tensor.h>

#include "attnmux/mask.h"

namespace attnmux::testing {

struct OracleInputs {
  at::Tensor q;     // [tokens_q, heads_q, head_dim], any dtype, any strides
  at::Tensor k;     // [tokens_k, heads_kv, head_dim]
  at::Tensor v;     // [tokens_k, heads_kv, head_dim_v]
  at::Tensor dout;  // [tokens_q, heads_q, head_dim_v]
  double softmax_scale = 1;
};

// Every element is a sum of products. Its magnitude is the sum of their absolute values: what rounding errors of a good
// implementation are relative to, even where the terms cancel.
struct OracleTensor {
  at::Tensor value;      // float64
  at::Tensor magnitude;  // float64, same shape
};

struct OracleResult {
  OracleTensor out;  // [tokens_q, heads_q, head_dim_v]
  OracleTensor lse;  // [tokens_q, heads_q]
  OracleTensor dq, dk, dv;
};

OracleResult oracle_attention(const AttnMaskSpec& mask, const OracleInputs& inputs);

}  // namespace attnmux::testing
