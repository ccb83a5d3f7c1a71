// Gradients of all ranks, added up.
#pragma once

#include "attnmux/cp_group.h"
#include "models/nn/parameter_store.h"

namespace attnmux {

// Replaces each parameter's gradient by the sum over the group's ranks, in fp32 whatever its dtype, the same bits on
// every rank. Collective; buckets are under way while the next is filled. Throws Error(kInternal) naming a parameter
// without a gradient.
void sum_gradients(const ParameterStore& parameters, CpGroup& world);

}  // namespace attnmux
