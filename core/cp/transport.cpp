#include <c10/core/ScalarType.h>

#include <algorithm>

#include "attnmux/cp_transport.h"
#include "attnmux/error.h"

namespace attnmux {
namespace {

std::string shape_text(const at::Tensor& tensor) {
  std::string text = "[";
  for (const int64_t size : tensor.sizes()) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "] " + c10::toString(tensor.scalar_type());
}

// Those that reduce_in_rank_order() knows.
bool can_reduce(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
    case at::kDouble:
    case at::kBFloat16:
    case at::kHalf:
    case at::kInt:
    case at::kLong: return true;
    default: return false;
  }
}

void check_tensor(const std::string& what, const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.numel() == 0) return;
  if (!tensor.device().is_cpu()) {
    throw Error(ErrorCode::kInvalidArgument, what + " is on " + tensor.device().str() +
                                                 "; this group moves CPU tensors. Use a group for that device");
  }
  if (!tensor.is_contiguous()) {
    throw Error(ErrorCode::kInvalidArgument, what + " " + shape_text(tensor) + " is not contiguous; pass a copy");
  }
}

}  // namespace

std::string to_string(const Extent& extent) {
  if (extent.elements == 0) return "nothing";
  return std::to_string(extent.elements) + " " + c10::toString(extent.dtype);
}

std::string to_string(ReduceOp op) { return op == ReduceOp::kSum ? "sum" : "max"; }

std::string to_string(const std::vector<int32_t>& list) {
  std::string text;
  for (const int32_t value : list) text += (text.empty() ? "" : ", ") + std::to_string(value);
  return text;
}

Extent extent_of(const at::Tensor& tensor) {
  return tensor.defined() ? Extent{tensor.numel(), tensor.scalar_type()} : Extent{};
}

void check_exchange(int32_t rank, int32_t size, const std::vector<at::Tensor>& send,
                    const std::vector<at::Tensor>& receive) {
  if (static_cast<int32_t>(send.size()) != size || static_cast<int32_t>(receive.size()) != size) {
    throw Error(ErrorCode::kInvalidArgument, "exchange: " + std::to_string(send.size()) + " tensors to send and " +
                                                 std::to_string(receive.size()) + " to receive in a group of " +
                                                 std::to_string(size) + " ranks; give one of each for every rank");
  }
  for (int32_t other = 0; other < size; ++other) {
    check_tensor("exchange: what is sent to rank " + std::to_string(other), send[other]);
    check_tensor("exchange: what is received from rank " + std::to_string(other), receive[other]);
  }
  const Extent sent = extent_of(send[rank]);
  const Extent received = extent_of(receive[rank]);
  if (!sent.agrees_with(received)) {
    throw Error(ErrorCode::kInvalidArgument, "exchange: rank " + std::to_string(rank) + " sends itself " +
                                                 to_string(sent) + " and expects " + to_string(received));
  }
}

void check_all_reduce(const at::Tensor& values) {
  if (!values.defined()) throw Error(ErrorCode::kInvalidArgument, "all_reduce: the tensor is undefined");
  check_tensor("all_reduce: the tensor", values);
  if (!can_reduce(values.scalar_type())) {
    throw Error(ErrorCode::kInvalidArgument, std::string("all_reduce: dtype ") + c10::toString(values.scalar_type()) +
                                                 "; it takes Float, Double, BFloat16, Half, Int and Long");
  }
}

void check_all_gather(int32_t size, const at::Tensor& mine, const at::Tensor& all) {
  if (!mine.defined() || !all.defined()) {
    throw Error(ErrorCode::kInvalidArgument, "all_gather: a tensor is undefined");
  }
  check_tensor("all_gather: this rank's tensor", mine);
  check_tensor("all_gather: the gathered tensor", all);
  std::vector<int64_t> expected{size};
  expected.insert(expected.end(), mine.sizes().begin(), mine.sizes().end());
  if (all.sizes() != at::IntArrayRef(expected) || all.scalar_type() != mine.scalar_type()) {
    throw Error(ErrorCode::kInvalidArgument, "all_gather: " + shape_text(mine) + " of each of " + std::to_string(size) +
                                                 " ranks do not make " + shape_text(all));
  }
}

void check_subgroup(int32_t rank, int32_t size, const std::vector<int32_t>& ranks) {
  const bool ascending = std::adjacent_find(ranks.begin(), ranks.end(), std::greater_equal<>()) == ranks.end();
  const bool inside = !ranks.empty() && ranks.front() >= 0 && ranks.back() < size;
  if (!ascending || !inside || !std::binary_search(ranks.begin(), ranks.end(), rank)) {
    throw Error(ErrorCode::kInvalidArgument, "subgroup {" + to_string(ranks) + "} on rank " + std::to_string(rank) +
                                                 " of " + std::to_string(size) +
                                                 ": list ranks of this group in ascending order, this one among them");
  }
}

void check_options(const CpGroupOptions& options) {
  if (options.deadline > std::chrono::milliseconds::zero()) return;
  throw Error(ErrorCode::kInvalidArgument, "group of ranks: a deadline of " + std::to_string(options.deadline.count()) +
                                               " ms; it must be above zero");
}

}  // namespace attnmux
