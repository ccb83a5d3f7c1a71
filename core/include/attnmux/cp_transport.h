// What transports share: for those who implement a CpGroup.
//
//   check_exchange(rank(), size(), send, receive);
//   if (!extent_of(mine).agrees_with(theirs)) ... to_string(theirs) ...
//
// Any thread. The checks look at arguments before anything is sent and throw Error(kInvalidArgument).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "attnmux/cp_group.h"
#include "attnmux/export.h"

namespace attnmux {

// What one rank sends to another, as far as both must agree on it.
struct Extent {
  int64_t elements = 0;
  at::ScalarType dtype = at::kFloat;
  bool agrees_with(const Extent& other) const {
    return elements == other.elements && (elements == 0 || dtype == other.dtype);
  }
};
ATTNMUX_API std::string to_string(const Extent& extent);         // "24 Float", "nothing"
ATTNMUX_API Extent extent_of(const at::Tensor& tensor);          // undefined: nothing
ATTNMUX_API std::string to_string(ReduceOp op);                  // "sum", "max"
ATTNMUX_API std::string to_string(const std::vector<int32_t>&);  // "0, 2"

// CPU tensors.
ATTNMUX_API void check_exchange(int32_t rank, int32_t size, const std::vector<at::Tensor>& send,
                                const std::vector<at::Tensor>& receive);
ATTNMUX_API void check_all_reduce(const at::Tensor& values);
ATTNMUX_API void check_all_gather(int32_t size, const at::Tensor& mine, const at::Tensor& all);
ATTNMUX_API void check_subgroup(int32_t rank, int32_t size, const std::vector<int32_t>& ranks);
ATTNMUX_API void check_options(const CpGroupOptions& options);

// Reduces elements [begin, end) of every rank's buffer and writes the result into all of them. Each element is added up
// in the order of ranks, in fp32 for bf16 and fp16, and rounded once: the same bits whoever does it. A maximum with a
// NaN is NaN. REQUIRES: check_all_reduce() of a tensor of this dtype.
ATTNMUX_API void reduce_in_rank_order(at::ScalarType dtype, ReduceOp op, const std::vector<void*>& buffers,
                                      int64_t begin, int64_t end);

}  // namespace attnmux
