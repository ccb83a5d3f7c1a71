// attend() and distributed_attend() without the question to the backend: for callers that have asked already.
#pragma once

#include <memory>

#include "attnmux/attend.h"
#include "attnmux/distributed_attend.h"
#include "call_checks.h"
#include "rank_trace.h"

namespace attnmux {

// REQUIRES of both: check_inputs() passed, and the backend takes a request that covers this call.
AttendResult run_attention(const std::shared_ptr<const AttentionBackend>& backend, const AttnMaskSpec& mask,
                           const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttendOptions& options,
                           PreparedCache& cache);
AttendResult run_distributed(const std::shared_ptr<const AttentionBackend>& backend, const AgreedPlan& plan,
                             const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const AttendOptions& options, PreparedCache& cache, const RankTrace& trace);

// What this rank brings to a call, and what the call asks of a backend in terms of the whole mask.
ExpectedTokens tokens_of(const AgreedPlan& plan);
AttentionRequest request_for(const AgreedPlan& plan, const MaskFacts& facts, const at::Tensor& q, const at::Tensor& k,
                             const at::Tensor& v, const AttendOptions& options);

}  // namespace attnmux
