// A request's dtype as LibTorch names it.
#pragma once

#include <c10/core/ScalarType.h>

#include "attnmux/request.h"

namespace attnmux {

inline at::ScalarType scalar_type(DType dtype) {
  switch (dtype) {
    case DType::kFloat32: return at::kFloat;
    case DType::kBFloat16: return at::kBFloat16;
    case DType::kFloat16: return at::kHalf;
    case DType::kFloat64: return at::kDouble;
  }
  return at::kFloat;
}

}  // namespace attnmux
