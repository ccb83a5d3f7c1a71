// Attention results over parts of the keys, merged into that over all of them.
#pragma once

#include "attnmux/backend.h"
#include "part_rows.h"

namespace attnmux {

// With lse_i of part i: lse = log sum exp(lse_i), out = sum exp(lse_i - lse) out_i, in fp32 (fp64 for fp64 input).
// (Dao et al., FlashAttention, section 3.1.) A row whose keys all lie in one part gets that part's result to the bit.
class LseMerge {
 public:
  LseMerge(const at::Tensor& q,  // [tokens_q, heads_q, head_dim]
           int64_t head_dim_v)
      : q_(q), head_dim_v_(head_dim_v) {}

  // part: of `rows` of q. May write into its tensors.
  void add(const ForwardResult& part, const PartRows& rows);

  // out has q's dtype; 0 with lse -inf where no part attends.
  ForwardResult finish();

 private:
  ForwardResult nothing(at::ScalarType dtype) const;

  at::Tensor q_;
  int64_t head_dim_v_;
  ForwardResult merged_;  // undefined, as the only part gave it, or in the wide dtype
};

// What is summed and merged in for tensors of this dtype: fp32, fp64 for fp64.
at::ScalarType wide_dtype(at::ScalarType dtype);

}  // namespace attnmux
