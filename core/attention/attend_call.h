// attend() without the question to the backend: for callers that have asked already.
#pragma once

#include <memory>

#include "attnmux/attend.h"

namespace attnmux {

// REQUIRES: check_inputs() passed, and the backend takes a request that covers this call.
AttendResult run_attention(const std::shared_ptr<const AttentionBackend>& backend, const AttnMaskSpec& mask,
                           const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttendOptions& options,
                           PreparedCache& cache);

}  // namespace attnmux
