// Tensors cut up for the ranks and put together again.
//
//   at::Tensor mine = dispatch(input_ids, plan, group.rank(), /*fill=*/0);       // [tokens_of(rank), ...]
//   at::Tensor all = undispatch(logits, plan, group);                            // [total, ...] on every rank
//
// Both are differentiable. dispatch is local: its gradient holds zeros for other ranks' tokens, so a tensor that every
// rank has whole gets its full gradient when the ranks' gradients are summed. undispatch's gradient is the sum of what
// every rank computed from the whole tensor: a collective, too, so every rank runs that backward, and the group lives
// until then. Neither has a second derivative.
#pragma once

#include <ATen/core/Tensor.h>

#include "attnmux/cp_group.h"
#include "attnmux/dispatch_plan.h"
#include "attnmux/export.h"

namespace attnmux {

// tokens: [total_q, ...] in global order. `fill` stands in padding. With cp = 1 the tensor itself. Throws
// Error(kInvalidArgument) where plan, rank and tensor do not fit.
ATTNMUX_API at::Tensor dispatch(const at::Tensor& tokens, const DispatchPlan& plan, int32_t rank, double fill);

// local: [tokens_of(rank), ...]. Padding is dropped. With cp = 1 the tensor itself. Collective.
ATTNMUX_API at::Tensor undispatch(const at::Tensor& local, const DispatchPlan& plan, CpGroup& group);

}  // namespace attnmux
