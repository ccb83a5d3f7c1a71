// What every group asks of the arguments of its calls, before anything is sent. All throw Error(kInvalidArgument).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "attnmux/cp_group.h"

namespace attnmux {

// What one rank sends to another, as far as both must agree on it.
struct Extent {
  int64_t elements = 0;
  at::ScalarType dtype = at::kFloat;
  bool agrees_with(const Extent& other) const {
    return elements == other.elements && (elements == 0 || dtype == other.dtype);
  }
};
std::string to_string(const Extent& extent);  // "24 Float", "nothing"

Extent extent_of(const at::Tensor& tensor);  // undefined: nothing

void check_exchange(int32_t rank, int32_t size, const std::vector<at::Tensor>& send,
                    const std::vector<at::Tensor>& receive);
void check_all_reduce(const at::Tensor& values);
void check_all_gather(int32_t size, const at::Tensor& mine, const at::Tensor& all);
void check_subgroup(int32_t rank, int32_t size, const std::vector<int32_t>& ranks);

std::string to_string(ReduceOp op);                       // "sum", "max"
std::string to_string(const std::vector<int32_t>& list);  // "0, 2"

}  // namespace attnmux
