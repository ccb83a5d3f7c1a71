// Backends of attnmux as operators of PyTorch, torch.ops.attnmux_bench.*, so that ffa_peers.py runs them in turns with
// its peers, in one process. For measuring alone; the plugins are found as `attnmux plugins` finds them.
//
//   plan = torch.ops.attnmux_bench.prepare("magi", mask_json, 32, 8, 128, "bf16")
//   out, lse = torch.ops.attnmux_bench.forward(plan, q, k, v, scale)
#include <ATen/ATen.h>
#include <torch/library.h>

#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "attnmux/error.h"
#include "attnmux/mask_io.h"
#include "attnmux/plugin_loader.h"

namespace attnmux {
namespace {

struct Plan {
  std::shared_ptr<const AttentionBackend> backend;
  std::shared_ptr<const Prepared> prepared;
};

std::mutex mutex;
std::vector<Plan> plans;

const PluginRegistry& registry() {
  static const auto loaded = [] {
    auto found = std::make_unique<PluginRegistry>();
    load_plugins({}, *found);
    return found;
  }();
  return *loaded;
}

Plan plan_at(int64_t handle) {
  const std::lock_guard lock(mutex);
  return plans.at(static_cast<size_t>(handle));
}

int64_t prepare(std::string backend, std::string mask_json, int64_t heads_q, int64_t heads_kv, int64_t head_dim,
                std::string dtype) {
  const AttentionShape shape = {.heads_q = heads_q,
                                .heads_kv = heads_kv,
                                .head_dim = head_dim,
                                .head_dim_v = head_dim,
                                .dtype = dtype == "fp16" ? DType::kFloat16 : DType::kBFloat16,
                                .device = DeviceKind::kCuda};
  Plan plan = {.backend = registry().at(backend)};
  plan.prepared = plan.backend->prepare(mask_from_json(mask_json), shape);
  const std::lock_guard lock(mutex);
  plans.push_back(std::move(plan));
  return static_cast<int64_t>(plans.size()) - 1;
}

void release(int64_t handle) {
  const std::lock_guard lock(mutex);
  plans.at(static_cast<size_t>(handle)) = {};
}

int64_t mask_area(std::string mask_json) { return mask_from_json(mask_json).area(); }

std::tuple<at::Tensor, at::Tensor> forward(int64_t handle, const at::Tensor& q, const at::Tensor& k,
                                           const at::Tensor& v, double softmax_scale) {
  const Plan plan = plan_at(handle);
  const ForwardResult result = plan.backend->forward(*plan.prepared, {q, k, v, softmax_scale});
  return {result.out, result.lse};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(int64_t handle, const at::Tensor& dout, const at::Tensor& q,
                                                        const at::Tensor& k, const at::Tensor& v, const at::Tensor& out,
                                                        const at::Tensor& lse, double softmax_scale,
                                                        bool deterministic) {
  const Plan plan = plan_at(handle);
  const BackwardResult result =
      plan.backend->backward(*plan.prepared, {dout, q, k, v, out, lse, softmax_scale, deterministic});
  return {result.dq, result.dk, result.dv};
}

}  // namespace
}  // namespace attnmux

TORCH_LIBRARY(attnmux_bench, library) {
  library.def("prepare(str backend, str mask, int heads_q, int heads_kv, int head_dim, str dtype) -> int",
              &attnmux::prepare);
  library.def("release(int plan) -> ()", &attnmux::release);
  library.def("area(str mask) -> int", &attnmux::mask_area);
  library.def("forward(int plan, Tensor q, Tensor k, Tensor v, float scale) -> (Tensor, Tensor)", &attnmux::forward);
  library.def(
      "backward(int plan, Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, float scale, "
      "bool deterministic) -> (Tensor, Tensor, Tensor)",
      &attnmux::backward);
}
