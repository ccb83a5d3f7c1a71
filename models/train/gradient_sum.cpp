#include "models/train/gradient_sum.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "attnmux/error.h"

namespace attnmux {
namespace {

constexpr int64_t kBucketElements = int64_t{4} << 20;

// Gradients side by side in one fp32 buffer, on their way through the group.
class Bucket {
 public:
  Bucket(std::vector<at::Tensor> gradients, int64_t elements, CpGroup& world) : gradients_(std::move(gradients)) {
    at::Tensor flat = at::empty({elements}, gradients_.front().options().dtype(at::kFloat));
    int64_t first = 0;
    for (const at::Tensor& gradient : gradients_) {
      flat.narrow(0, first, gradient.numel()).view_as(gradient).copy_(gradient);
      first += gradient.numel();
    }
    flat_ = flat;
    work_ = world.all_reduce(flat, ReduceOp::kSum);
  }

  void finish() {
    work_->wait();
    int64_t first = 0;
    for (at::Tensor& gradient : gradients_) {
      gradient.copy_(flat_.narrow(0, first, gradient.numel()).view_as(gradient));
      first += gradient.numel();
    }
  }

 private:
  std::vector<at::Tensor> gradients_;
  at::Tensor flat_;
  std::unique_ptr<Work> work_;
};

}  // namespace

void sum_gradients(const ParameterStore& parameters, CpGroup& world) {
  if (world.size() == 1) return;
  const at::NoGradGuard no_grad;
  std::optional<Bucket> under_way;
  std::vector<at::Tensor> gradients;
  int64_t elements = 0;
  const auto send = [&] {
    if (gradients.empty()) return;
    Bucket next(std::exchange(gradients, {}), std::exchange(elements, 0), world);
    if (under_way) under_way->finish();
    under_way.emplace(std::move(next));
  };
  for (const std::string& name : parameters.names()) {
    const at::Tensor& gradient = parameters.at(name).grad();
    if (!gradient.defined()) throw Error(ErrorCode::kInternal, "parameter " + name + " has received no gradient");
    if (elements + gradient.numel() > kBucketElements) send();
    gradients.push_back(gradient);
    elements += gradient.numel();
  }
  send();
  if (under_way) under_way->finish();
}

}  // namespace attnmux
