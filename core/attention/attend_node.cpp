#include "attend_node.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include "attnmux/error.h"

namespace attnmux {
namespace {

// Written as a Node and not as an autograd::Function: a Function's saved data must be IValues, and these are not.
struct AttendBackward : public torch::autograd::Node {
  AttendBackward(AttendNode node, torch::autograd::edge_list edges) : Node(std::move(edges)), node_(std::move(node)) {}

  std::string name() const override { return "AttnmuxAttendBackward"; }

  void save(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const ForwardResult& result) {
    q_ = torch::autograd::SavedVariable(q, /*is_output=*/false);
    k_ = torch::autograd::SavedVariable(k, /*is_output=*/false);
    v_ = torch::autograd::SavedVariable(v, /*is_output=*/false);
    out_ = torch::autograd::SavedVariable(result.out, /*is_output=*/true);
    lse_ = torch::autograd::SavedVariable(result.lse, /*is_output=*/false);
  }

  void release_variables() override {
    std::lock_guard lock(mutex_);
    for (auto* saved : {&q_, &k_, &v_, &out_, &lse_}) saved->reset_data();
    node_.backward = nullptr;  // it may hold tensors, too
    released_ = true;
  }

  torch::autograd::variable_list apply(torch::autograd::variable_list&& grads) override {
    std::lock_guard lock(mutex_);
    // The engine turns grad mode on in a backward that shall itself be differentiable.
    if (c10::GradMode::is_enabled()) {
      throw Error(ErrorCode::kInvalidArgument,
                  node_.call.prefix +
                      "backward was called with create_graph = true, but attention has no second derivative "
                      "here; call it with create_graph = false");
    }
    if (released_) {
      throw Error(ErrorCode::kInvalidArgument,
                  node_.call.prefix +
                      "backward runs a second time through the same graph; pass retain_graph = true to the "
                      "first backward if that is meant");
    }
    torch::autograd::variable_list inputs_grads(3);
    if (grads[0].defined() || node_.collective) {
      const at::Tensor out = out_.unpack(getptr());
      BackwardResult result = node_.backward({.dout = grads[0].defined() ? grads[0] : at::zeros_like(out),
                                              .q = q_.unpack(),
                                              .k = k_.unpack(),
                                              .v = v_.unpack(),
                                              .out = out,
                                              .lse = lse_.unpack(),
                                              .softmax_scale = node_.call.softmax_scale,
                                              .deterministic = node_.call.deterministic});
      if (task_should_compute_output(0)) inputs_grads[0] = std::move(result.dq);
      if (task_should_compute_output(1)) inputs_grads[1] = std::move(result.dk);
      if (task_should_compute_output(2)) inputs_grads[2] = std::move(result.dv);
    }
    if (node_.on_backward) node_.on_backward();
    return inputs_grads;
  }

 private:
  AttendNode node_;
  torch::autograd::SavedVariable q_, k_, v_, out_, lse_;
  bool released_ = false;
};

}  // namespace

bool wants_gradient(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  return torch::autograd::compute_requires_grad(q, k, v);
}

void record(AttendNode node, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, ForwardResult& result) {
  auto recorded = std::shared_ptr<AttendBackward>(
      new AttendBackward(std::move(node), torch::autograd::collect_next_edges(q, k, v)), torch::autograd::deleteNode);
  torch::autograd::set_history(result.out, recorded);
  recorded->save(q, k, v, result);
}

}  // namespace attnmux
