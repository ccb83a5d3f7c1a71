// Every call of a group by name, and what a rank may do instead of making it.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <string>
#include <vector>

#include "attnmux/cp_group.h"
#include "attnmux/group_cast.h"

namespace attnmux::testing {

inline std::string of(int32_t rank, int32_t size) {
  return "rank " + std::to_string(rank) + " of " + std::to_string(size);
}

struct NamedCall {
  std::string name;
  std::string in_text;
  std::function<void(CpGroup& group)> call;
};

inline void exchange_with_all(CpGroup& group, int64_t elements = 3, at::ScalarType dtype = at::kFloat) {
  std::vector<at::Tensor> send, receive;
  for (int32_t other = 0; other < group.size(); ++other) {
    send.push_back(at::ones({elements}, dtype));
    receive.push_back(at::empty({elements}, dtype));
  }
  group.exchange(std::move(send), std::move(receive))->wait();
}

// Every rank casts one token to all others.
inline GroupCastArgs to_all_others(const CpGroup& group) {
  GroupCastArgs args{{1}, {{}}, {}, {}};
  for (int32_t other = 0; other < group.size(); ++other) {
    if (other == group.rank()) continue;
    args.dst[0].push_back(other);
    args.output_splits.push_back(1);
    args.src.push_back(other);
  }
  return args;
}

inline std::vector<NamedCall> named_calls() {
  return {{"exchange", "exchange", [](CpGroup& group) { exchange_with_all(group); }},
          {"all_reduce", "all_reduce(sum, 2 Float)",
           [](CpGroup& group) {
             at::Tensor values = at::ones({2});
             group.all_reduce(values, ReduceOp::kSum)->wait();
           }},
          {"all_gather", "all_gather(2 Float)",
           [](CpGroup& group) {
             group.all_gather(at::ones({2}), at::empty({group.size(), 2}))->wait();
           }},
          {"barrier", "barrier", [](CpGroup& group) { group.barrier(); }},
          {"subgroup", "subgroup", [](CpGroup& group) { group.subgroup({group.rank()}); }},
          {"group_cast", "exchange",
           [](CpGroup& group) {
             group_cast(group, to_all_others(group), at::ones({1, 4})).wait();
           }},
          {"group_reduce", "exchange", [](CpGroup& group) {
             at::Tensor sum = at::zeros({1, 4});
             group_reduce(group, to_all_others(group), at::ones({group.size() - 1, 4})).wait_and_add(sum);
           }}};
}

enum class Fault { kThrow, kReturn, kStall, kAbort };
inline std::string to_string(Fault fault) {
  switch (fault) {
    case Fault::kThrow: return "throw";
    case Fault::kReturn: return "return";
    case Fault::kStall: return "stall";
    case Fault::kAbort: return "abort";
  }
  return "";
}

}  // namespace attnmux::testing
