// The two exchanges of context parallelism. GroupCast: each rank sends pieces of its tokens to any set of ranks, and
// every token arrives exactly once where it is needed. GroupReduce: the way back, pieces are summed where they came
// from.
//
//   GroupCastResult kv = group_cast(group, args, local_kv);     // returns at once
//   ... compute ...
//   at::Tensor remote = kv.wait();                              // [sum(output_splits), ...]
//
// The arguments follow MagiAttention's GroupCast (input_split_sizes, dst_indices_list, output_split_sizes,
// src_index_list). A rank's calls come from one thread and in the same order on every rank.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
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
  // The received tokens. Throws what the group's Work throws. Once.
  at::Tensor wait();

 private:
  friend class GroupExchange;
  struct State;
  std::shared_ptr<State> state_;
};

// input: [sum(input_splits), ...], any strides; read until wait() returns.
ATTNMUX_API GroupCastResult group_cast(CpGroup& group, const GroupCastArgs& args, const at::Tensor& input);

class ATTNMUX_API GroupReduceResult {
 public:
  // Adds what the others sent to `into` [sum(input_splits), ...], ascending by rank: the same bits in every run. Once.
  void wait_and_add(at::Tensor& into);

 private:
  friend class GroupExchange;
  struct State;
  std::shared_ptr<State> state_;
};

// input: [sum(output_splits), ...], as group_cast with the same args returned them.
ATTNMUX_API GroupReduceResult group_reduce(CpGroup& group, const GroupCastArgs& args, const at::Tensor& input);

}  // namespace attnmux
