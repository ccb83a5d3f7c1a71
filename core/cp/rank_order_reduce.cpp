#include <ATen/OpMathType.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <array>
#include <string>

#include "attnmux/cp_transport.h"
#include "attnmux/error.h"

namespace attnmux {
namespace {

template <class T>
T larger(T a, T b) {
  return b > a || b != b ? b : a;  // b != b: NaN
}

template <class T>
void reduce(ReduceOp op, const std::vector<void*>& buffers, int64_t begin, int64_t end) {
  constexpr int64_t kBlock = 1024;  // of elements: what is added up stays in the cache
  std::array<at::opmath_type<T>, kBlock> result;
  for (int64_t at = begin; at < end; at += kBlock) {
    const int64_t count = std::min(kBlock, end - at);
    std::copy_n(static_cast<const T*>(buffers[0]) + at, count, result.begin());
    for (size_t rank = 1; rank < buffers.size(); ++rank) {
      const T* values = static_cast<const T*>(buffers[rank]) + at;
      if (op == ReduceOp::kSum) {
        for (int64_t i = 0; i < count; ++i) result[i] += values[i];
      } else {
        for (int64_t i = 0; i < count; ++i) result[i] = larger<at::opmath_type<T>>(result[i], values[i]);
      }
    }
    for (void* buffer : buffers) std::copy_n(result.begin(), count, static_cast<T*>(buffer) + at);
  }
}

}  // namespace

void reduce_in_rank_order(at::ScalarType dtype, ReduceOp op, const std::vector<void*>& buffers, int64_t begin,
                          int64_t end) {
  switch (dtype) {
    case at::kFloat: return reduce<float>(op, buffers, begin, end);
    case at::kDouble: return reduce<double>(op, buffers, begin, end);
    case at::kBFloat16: return reduce<c10::BFloat16>(op, buffers, begin, end);
    case at::kHalf: return reduce<c10::Half>(op, buffers, begin, end);
    case at::kInt: return reduce<int32_t>(op, buffers, begin, end);
    case at::kLong: return reduce<int64_t>(op, buffers, begin, end);
    default: throw Error(ErrorCode::kInternal, std::string("reduction of dtype ") + c10::toString(dtype));
  }
}

}  // namespace attnmux
