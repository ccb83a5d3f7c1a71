#include "common/by_device.h"

#include <utility>

namespace attnmux {
namespace {

class ByDevice final : public AttentionBackend {
 public:
  ByDevice(std::shared_ptr<const AttentionBackend> cpu, std::shared_ptr<const AttentionBackend> cuda)
      : cpu_(std::move(cpu)), cuda_(std::move(cuda)) {}

  BackendInfo info() const override { return cpu_->info(); }

  Support query(const AttentionRequest& request) const noexcept override {
    return part(request.device == DeviceKind::kCuda).query(request);
  }

  std::shared_ptr<const Prepared> prepare(const AttnMaskSpec& mask, const AttentionShape& shape) const override {
    return part(shape.device == DeviceKind::kCuda).prepare(mask, shape);
  }

  ForwardResult forward(const Prepared& prepared, const ForwardArgs& args) const override {
    return part(args.q.is_cuda()).forward(prepared, args);
  }

  BackwardResult backward(const Prepared& prepared, const BackwardArgs& args) const override {
    return part(args.q.is_cuda()).backward(prepared, args);
  }

 private:
  const AttentionBackend& part(bool on_cuda) const { return on_cuda ? *cuda_ : *cpu_; }

  std::shared_ptr<const AttentionBackend> cpu_;
  std::shared_ptr<const AttentionBackend> cuda_;
};

}  // namespace

std::shared_ptr<const AttentionBackend> make_by_device(std::shared_ptr<const AttentionBackend> cpu,
                                                       std::shared_ptr<const AttentionBackend> cuda) {
  return std::make_shared<ByDevice>(std::move(cpu), std::move(cuda));
}

}  // namespace attnmux
