// Keys and values of one rank on their way: out to the ranks that attend them, and their gradients home again.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <utility>
#include <vector>

#include "attnmux/cp_group.h"
#include "attnmux/dist_attn_plan.h"

namespace attnmux {

struct KeysAndValues {
  at::Tensor k;  // [tokens, heads_kv, head_dim]
  at::Tensor v;  // [tokens, heads_kv, head_dim_v]
};

// k and v side by side, [tokens, heads_kv * (head_dim + head_dim_v)]: one exchange moves both.
at::Tensor pack(const KeysAndValues& tokens, at::ScalarType dtype);
// Views of what pack() made, with the heads and head dims of `like`.
KeysAndValues unpack(const at::Tensor& packed, const KeysAndValues& like);

// What others' keys arrive in, stage by stage: each exchange is under way while the part before it is computed.
class RemoteKeys {
 public:
  // Starts the first exchange. `own` and the stages are used until the last of them has arrived.
  RemoteKeys(CpGroup& group, const std::vector<StagePlan>& stages, const KeysAndValues& own);
  // The next stage's keys and values; starts the exchange behind it.
  KeysAndValues next();

 private:
  void start();

  CpGroup& group_;
  const std::vector<StagePlan>& stages_;
  KeysAndValues own_;
  at::Tensor packed_;
  size_t started_ = 0;
  std::optional<GroupCastResult> under_way_;
};

// Gradients of others' keys go home while the next part is computed.
class RemoteGradients {
 public:
  // sum: [own tokens, ...] in the wide dtype, as pack() lays it out; holds this rank's own part already.
  RemoteGradients(CpGroup& group, at::Tensor sum) : group_(group), sum_(std::move(sum)) {}
  // packed: gradients of the keys that arrived by `args`.
  void send(const GroupCastArgs& args, const at::Tensor& packed);
  // Everything has been added.
  at::Tensor finish();

 private:
  void receive();

  CpGroup& group_;
  at::Tensor sum_;
  std::optional<GroupReduceResult> under_way_;
};

}  // namespace attnmux
