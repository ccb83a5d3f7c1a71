// The two exchanges of context parallelism. GroupCast: each rank sends pieces of its tokens to any set of ranks, and
// every token arrives exactly once where it is needed. GroupReduce: the way back, pieces are summed where they came
// from.
//
//   GroupCastResult kv = group_cast(group, args, local_kv);     // returns at once
//   ... compute ...
//   at::Tensor remote = kv.wait();                              // [sum(output_splits), ...]
//
// A rank's pieces travel straight from `input`, and arrive straight in the result, where they lie in one run; else they
// are packed once. Ranks that exchange nothing do not wait for each other. The arguments follow MagiAttention's
// GroupCast (input_split_sizes, dst_indices_list, output_split_sizes, src_index_list). A rank's calls come from one
// thread and in the same order on every rank.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "attnmux/cp_group.h"
#include "attnmux/export.h"

namespace attnmux {

// One rank's part. Pieces that two ranks exchange come in the same order on both sides.
struct ATTNMUX_API GroupCastArgs {
  std::vector<int64_t> input_splits;       // own tokens cut into pieces
  std::vector<std::vector<int32_t>> dst;   // [pieces] ranks that get the piece, ascending; none: it stays
  std::vector<int64_t> output_splits;      // received tokens, piece by piece
  std::vector<int32_t> src;                // [pieces received] rank that each comes from
  int64_t tokens_sent() const;             // a piece counts once for each rank that gets it
  int64_t tokens_received() const;
  friend bool operator==(const GroupCastArgs&, const GroupCastArgs&) = default;
};

class ATTNMUX_API GroupCastResult {
 public:
  struct State;
  explicit GroupCastResult(std::shared_ptr<State> state) : state_(std::move(state)) {}

  // The received tokens. Throws what the group's Work throws. Once.
  at::Tensor wait();

 private:
  std::shared_ptr<State> state_;
};

// input: [sum(input_splits), ...], any strides; read until wait() returns. Throws Error(kInvalidArgument) where args do
// not fit the group or the input. Not differentiable: the way back is group_reduce.
ATTNMUX_API GroupCastResult group_cast(CpGroup& group, const GroupCastArgs& args, const at::Tensor& input);

class ATTNMUX_API GroupReduceResult {
 public:
  struct State;
  explicit GroupReduceResult(std::shared_ptr<State> state) : state_(std::move(state)) {}

  // Adds what the others sent to `into` [sum(input_splits), ...], ascending by rank: the same bits in every run. `into`
  // may have another dtype, fp32 for bf16 pieces; into bf16 or fp16 the sum is made in fp32 and rounded once. Once.
  void wait_and_add(at::Tensor& into);

 private:
  std::shared_ptr<State> state_;
};

// input: [sum(output_splits), ...], as group_cast with the same args returned them.
ATTNMUX_API GroupReduceResult group_reduce(CpGroup& group, const GroupCastArgs& args, const at::Tensor& input);

}  // namespace attnmux
