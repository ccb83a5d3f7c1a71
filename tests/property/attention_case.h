// Random attention calls: a mask of any family, heads, head dims, strides, scale, and the tensors made from them.
#pragma once

#include <ATen/core/Tensor.h>
#include <rapidcheck.h>

#include <cstdint>
#include <iosfwd>
#include <string>

#include "attnmux/mask.h"
#include "attnmux/request.h"
#include "oracle/attention_oracle.h"

namespace attnmux::testing {

// How a [tokens, heads, dim] tensor lies in memory.
enum class Strides {
  kContiguous,
  kHeadsFirst,  // a view of [heads, tokens, dim]
  kPacked,      // one of several tensors side by side in [tokens, 3 * heads, dim]
  kDimStrided,  // every second element of [tokens, heads, 2 * dim]
  kDimFirst,    // a view of [dim, tokens, heads]
  kShiftedOne,  // contiguous, one element behind an aligned address
  kOneHead,     // one head broadcast to all: stride 0
  kOneToken,    // one token broadcast to all: stride 0
};

struct AttentionCase {
  std::string mask_kind;  // which generator made the mask
  AttnMaskSpec mask;
  int64_t heads_kv = 1;
  int64_t group = 1;  // query heads a key/value head
  int64_t head_dim = 1;
  int64_t head_dim_v = 1;
  Strides q = Strides::kContiguous, k = Strides::kContiguous, v = Strides::kContiguous, dout = Strides::kContiguous;
  double softmax_scale = 1;
  uint64_t seed = 0;  // of the tensors' values
};

// The case as a caller sees it, for rapidcheck's reports.
std::ostream& operator<<(std::ostream& out, const AttentionCase& c);

rc::Gen<AttentionCase> random_attention_case();

// Standard normal values, the same for the same case; drawn in float64 and rounded to `dtype`.
OracleInputs make_tensors(const AttentionCase& c, DType dtype);

// [tokens, heads, dim] normal values in the given memory layout.
at::Tensor random_tensor(int64_t tokens, int64_t heads, int64_t dim, DType dtype, Strides strides, uint64_t seed);

}  // namespace attnmux::testing
