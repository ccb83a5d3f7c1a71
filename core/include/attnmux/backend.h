// The interface that an attention plugin implements.
//
//   class MyBackend : public AttentionBackend { ... };       // registered by id, see plugin.h
//
// Tensors are THD: q [tokens_q, heads_q, head_dim], k [tokens_k, heads_kv, head_dim], v [tokens_k, heads_kv,
// head_dim_v]. The caller (attend.h) has checked shapes, dtypes and device against the mask, and has turned BSHD into
// THD. Any strides may come: take them, copy, or refuse with a reason. heads_q is a multiple of heads_kv; query head h
// reads key/value head h / (heads_q / heads_kv). A backend is const and shared: every function may be called from
// several threads at once. It owns no state between calls; tensors it returns belong to the caller. Errors are thrown
// as Error.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "attnmux/export.h"
#include "attnmux/mask.h"
#include "attnmux/request.h"

namespace attnmux {

struct BackendInfo {
  std::string id;             // "magi"
  std::string version;        // "0.1.0"
  std::string description;    // one line
  int32_t auto_priority = 0;  // a rule with backend "auto" asks the highest first, ties by id; negative: never
};

// What a prepared mask is made for.
struct AttentionShape {
  int64_t heads_q = 1;
  int64_t heads_kv = 1;
  int64_t head_dim = 64;
  int64_t head_dim_v = 64;
  DType dtype = DType::kFloat32;
  DeviceKind device = DeviceKind::kCpu;
  int32_t device_index = 0;  // which GPU
  friend bool operator==(const AttentionShape&, const AttentionShape&) = default;
};

// What a backend derives once from a mask and uses in every call with it: tile lists, index tensors. Immutable.
class ATTNMUX_API Prepared {
 public:
  virtual ~Prepared();
};

struct ForwardArgs {
  at::Tensor q;  // [tokens_q, heads_q, head_dim]
  at::Tensor k;  // [tokens_k, heads_kv, head_dim]
  at::Tensor v;  // [tokens_k, heads_kv, head_dim_v]
  double softmax_scale = 1.0;
};

struct ForwardResult {
  at::Tensor out;  // [tokens_q, heads_q, head_dim_v], dtype of q; rows without keys are 0
  at::Tensor lse;  // [tokens_q, heads_q] fp32 (fp64 for fp64 input): ln(sum_k exp(softmax_scale * q.k)); rows without
                   // keys -inf
};

struct BackwardArgs {
  at::Tensor dout;     // [tokens_q, heads_q, head_dim_v]
  at::Tensor q, k, v;  // as in forward
  at::Tensor out;      // what forward returned; under context parallelism the merged output of all stages
  at::Tensor lse;      // likewise
  double softmax_scale = 1.0;
  bool deterministic = false;
};

struct BackwardResult {
  at::Tensor dq;  // [tokens_q, heads_q, head_dim], dtype of q
  at::Tensor dk;  // [tokens_k, heads_kv, head_dim], summed over the query heads of a group
  at::Tensor dv;  // [tokens_k, heads_kv, head_dim_v]
};

class ATTNMUX_API AttentionBackend {
 public:
  virtual ~AttentionBackend();

  virtual BackendInfo info() const = 0;

  // Pure: the same answer to the same request, from any thread. Evaluates every gate and returns all refusals.
  virtual Support query(const AttentionRequest& request) const noexcept = 0;

  // Host-side work that depends on mask and shape alone. Cached by the caller by (mask hash, shape).
  virtual std::shared_ptr<const Prepared> prepare(const AttnMaskSpec& mask, const AttentionShape& shape) const = 0;

  // REQUIRES: `prepared` came from this backend's prepare() for the mask and shape of these tensors.
  virtual ForwardResult forward(const Prepared& prepared, const ForwardArgs& args) const = 0;
  virtual BackwardResult backward(const Prepared& prepared, const BackwardArgs& args) const = 0;
};

}  // namespace attnmux
