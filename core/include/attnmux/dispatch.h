// Tensors cut up for the ranks and put together again.
//
//   at::Tensor mine = dispatch(input_ids, plan, group.rank(), /*fill=*/0);       // [tokens_of(rank), ...]
//   at::Tensor all = undispatch(logits, plan, group);                            // [total, ...] on every rank
//   at::Tensor all = gather_tokens(image_tokens, {{{0, 9}}, {{9, 15}}}, group);  // dealt out without a plan
//
// All are differentiable. dispatch is local: its gradient holds zeros for other ranks' tokens, so a tensor that every
// rank has whole gets its full gradient when the ranks' gradients are summed. The gradient of undispatch and
// gather_tokens is the sum of what every rank computed from the whole tensor: a collective, too, so every rank runs
// that backward (a tensor needs a gradient on all ranks or on none), and the group lives until then. None has a second
// derivative.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "attnmux/cp_group.h"
#include "attnmux/dispatch_plan.h"
#include "attnmux/export.h"

namespace attnmux {

// tokens: [total_q, ...] in global order. `fill` stands in padding. With cp = 1 the tensor itself. Throws
// Error(kInvalidArgument) where plan, rank and tensor do not fit.
ATTNMUX_API at::Tensor dispatch(const at::Tensor& tokens, const DispatchPlan& plan, int32_t rank, double fill);

// local: [tokens_of(rank), ...]. Padding is dropped. With cp = 1 the tensor itself. Collective.
ATTNMUX_API at::Tensor undispatch(const at::Tensor& local, const DispatchPlan& plan, CpGroup& group);

// The inverse of another way to deal tokens out: local holds those of owned[rank], [owned tokens, ...], and every rank
// gets [total, ...]. REQUIRES: each rank's ranges ascend; together they are [0, total), each token once. With one rank
// the tensor itself. Collective.
ATTNMUX_API at::Tensor gather_tokens(const at::Tensor& local, const std::vector<std::vector<Range>>& owned,
                                     CpGroup& group);

}  // namespace attnmux
