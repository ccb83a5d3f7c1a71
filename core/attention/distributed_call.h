// One attention call over a group, without autograd: the parts of a rank's plan, computed while the next keys arrive.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "attnmux/distributed_attend.h"
#include "backend_call.h"
#include "part_rows.h"
#include "rank_trace.h"
#include "remote_tokens.h"

namespace attnmux {

class DistributedCall {
 public:
  // REQUIRES: the tensors are those of the plan's rank, THD. Prepares the masks of the parts.
  DistributedCall(BackendCall call, AgreedPlan plan, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  PreparedCache& cache, const RankTrace& trace);

  // Does the plan keep forward's remote keys for backward?
  bool keeps_remote_keys() const { return plan_.plan().overlap().keep_remote_keys; }

  // Collective, both; backward takes forward's results. Const: backward may run again, or on another thread.
  // arrived: gets the keys of each stage, where a pointer is given.
  ForwardResult forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                        std::vector<KeysAndValues>* arrived = nullptr) const;
  // kept: what arrived in forward, and nothing travels but gradients; or none, and keys are fetched again.
  BackwardResult backward(const BackwardArgs& args, const std::vector<KeysAndValues>& kept = {}) const;

 private:
  BackendCall call_;
  AgreedPlan plan_;
  RankTrace trace_;
  struct Part {
    std::string name;  // "host", "stage 0"
    PartRows rows;
    std::shared_ptr<const Prepared> prepared;  // nullptr: this rank attends none of its keys
  };
  Part host_;
  std::vector<Part> forward_stages_, backward_stages_;
};

}  // namespace attnmux
