// "sdpa": ATen's scaled dot product attention with the mask given as a dense matrix.
//
// Takes any mask at the price of SDPA with an explicit mask: time and memory grow with tokens_q * tokens_k, whatever
// is attended (a full mask is passed as none). Runs ATen's fused CPU kernel, the one of SDPA's kernels that returns an
// lse, hence head_dim_v == head_dim.
#pragma once

#include <memory>

#include "attnmux/backend.h"

namespace attnmux {

std::shared_ptr<const AttentionBackend> make_sdpa_backend();

}  // namespace attnmux
