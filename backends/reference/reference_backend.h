// "reference": attention written straight from the formula, one head at a time over a dense mask.
//
// What every other backend is compared with: any mask, any dtype, any head_dim_v, CPU and GPU. Computes in fp32 for
// fp32, bf16 and fp16 and in fp64 for fp64; results are rounded once, at the end. Memory and time grow with tokens
// squared.
#pragma once

#include <memory>

#include "attnmux/backend.h"

namespace attnmux {

std::shared_ptr<const AttentionBackend> make_reference_backend();

}  // namespace attnmux
