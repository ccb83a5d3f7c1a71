// Tensor maps of the bulk copy engine for THD tensors.
#pragma once

#include <cuda.h>

#include "ffa_sm90/launch.h"

namespace attnmux::ffa_sm90 {

// Boxes of 64 columns x 1 head x `rows` tokens with 128-byte swizzle; tokens outside read as 0 and are not written.
// Throws Error(kInvalidArgument) naming the tensor where base or strides are not multiples of 16 bytes.
CUtensorMap make_tensor_map(const char* name, const TensorView& tensor, Element element, uint32_t rows);

}  // namespace attnmux::ffa_sm90
