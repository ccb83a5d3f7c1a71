#include "models/nn/activation_checkpoint.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

namespace attnmux {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What backward needs beside tensors, in the form that an AutogradContext can hold.
struct Rerun : torch::CustomClassHolder {
  Rerun(StepContext& s, std::function<at::Tensor(const at::Tensor&)> r) : step(s), run(std::move(r)) {}
  StepContext& step;
  std::function<at::Tensor(const at::Tensor&)> run;
};

class Checkpoint : public torch::autograd::Function<Checkpoint> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& input, const c10::intrusive_ptr<Rerun>& rerun) {
    ctx->save_for_backward({input});
    ctx->saved_data["rerun"] = c10::IValue::make_capsule(rerun);
    return rerun->run(input);  // Function::apply has switched gradients off
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto rerun = c10::static_intrusive_pointer_cast<Rerun>(ctx->saved_data["rerun"].toCapsule());
    const at::AutoGradMode with_gradients(true);
    const at::Tensor input = ctx->get_saved_variables()[0].detach().requires_grad_(true);
    at::Tensor output;
    {
      const StepContext::Recompute recompute(rerun->step);
      output = rerun->run(input);
    }
    torch::autograd::backward({output}, {grads[0]});
    return {input.grad(), at::Tensor()};
  }
};

}  // namespace

at::Tensor activation_checkpoint(StepContext& step, const at::Tensor& input,
                                 std::function<at::Tensor(const at::Tensor&)> run) {
  return Checkpoint::apply(input, c10::make_intrusive<Rerun>(step, std::move(run)));
}

}  // namespace attnmux
