// One differentiable attention call with a chosen backend: what StepContext::attend and `attnmux attend` run.
//
//   AttendResult result = attend(backend, mask, q, k, v, {.softmax_scale = 0.125}, cache);
//
// Checks shapes, dtype and device against the mask, turns BSHD into THD without a copy, prepares the mask (cached) and
// records an autograd node when a gradient is wanted. Thread-safe; the cache may be shared.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "attnmux/backend.h"
#include "attnmux/export.h"
#include "attnmux/mask.h"

namespace attnmux {

// Prepared masks by (backend, mask hash, shape), the least recently used dropped beyond `capacity` entries.
class ATTNMUX_API PreparedCache {
 public:
  explicit PreparedCache(size_t capacity = 64);
  ~PreparedCache();
  std::shared_ptr<const Prepared> get(const std::shared_ptr<const AttentionBackend>& backend, const AttnMaskSpec& mask,
                                      const AttentionShape& shape);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

struct AttendOptions {
  Layout layout = Layout::kTHD;
  std::optional<double> softmax_scale;  // default 1 / sqrt(head_dim)
  bool deterministic = false;
  std::string module;                 // named in errors; empty outside a model
  std::function<void()> on_backward;  // called whenever the node's backward has run; for the ledger
};

struct AttendResult {
  at::Tensor out;  // as q, with head_dim_v last; THD or BSHD as asked
  at::Tensor lse;  // [tokens_q, heads_q], natural log, no gradient
};

// What a call with these tensors asks of a backend. `training` is true where a gradient would be recorded.
// Throws Error(kInvalidArgument) as attend() does.
ATTNMUX_API AttentionRequest request_for(const AttnMaskSpec& mask, const at::Tensor& q, const at::Tensor& k,
                                         const at::Tensor& v, const AttendOptions& options);

// Errors, before the backend runs: kInvalidArgument naming tensor, dimension, got and expected; kUnsupported with all
// reasons of the backend. After it ran: kContractBroken where what it returned has another shape, dtype or device, or
// where it refused what query() took. Gradients can be taken once: create_graph = true is refused.
ATTNMUX_API AttendResult attend(const std::shared_ptr<const AttentionBackend>& backend, const AttnMaskSpec& mask,
                                const at::Tensor& q,  // [tokens_q, heads_q, head_dim], or [1, ...] for kBSHD
                                const at::Tensor& k,  // [tokens_k, heads_kv, head_dim]
                                const at::Tensor& v,  // [tokens_k, heads_kv, head_dim_v]
                                const AttendOptions& options, PreparedCache& cache);

}  // namespace attnmux
