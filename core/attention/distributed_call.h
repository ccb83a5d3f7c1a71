// One attention call over a group, without autograd: the parts of a rank's plan, computed while the next keys arrive.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "attnmux/distributed_attend.h"
#include "backend_call.h"
#include "rank_trace.h"

namespace attnmux {

class DistributedCall {
 public:
  // REQUIRES: the tensors are those of the plan's rank, THD. Prepares the masks of the parts.
  DistributedCall(BackendCall call, AgreedPlan plan, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  PreparedCache& cache, const RankTrace& trace);

  // Collective, both; backward takes forward's results. Const: backward may run again, or on another thread.
  ForwardResult forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) const;
  BackwardResult backward(const BackwardArgs& args) const;

 private:
  BackendCall call_;
  AgreedPlan plan_;
  RankTrace trace_;
  struct Part {
    std::string name;                          // "host", "stage 0"
    std::shared_ptr<const Prepared> prepared;  // nullptr: this rank attends none of its keys
  };
  Part host_;
  std::vector<Part> stages_;
};

}  // namespace attnmux
