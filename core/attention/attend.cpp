#include "attnmux/attend.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <cmath>
#include <new>

#include "attend_call.h"
#include "attnmux/error.h"
#include "call_checks.h"

namespace attnmux {
namespace {

// Runs `call` of a backend that took the request. A refusal now contradicts its query(); lack of memory gets its code.
template <class Call>
auto guarded(const std::string& prefix, const Call& call) {
  try {
    return call();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kUnsupported && error.code() != ErrorCode::kInvalidArgument) throw;
    throw Error(ErrorCode::kContractBroken,
                prefix + "query() took this request, yet the call was refused: " + error.what());
  } catch (const c10::OutOfMemoryError& error) {
    throw Error(ErrorCode::kOutOfMemory, prefix + error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::kOutOfMemory, prefix + "out of memory");
  }
}

struct Call {
  std::shared_ptr<const AttentionBackend> backend;
  std::shared_ptr<const Prepared> prepared;
  double softmax_scale;
  bool deterministic;
  std::string prefix;  // of error messages
  std::function<void()> on_backward;
};

// Written as a Node and not as an autograd::Function: a Function's saved data must be IValues, and these are not.
struct AttendBackward : public torch::autograd::Node {
  AttendBackward(Call call, torch::autograd::edge_list edges) : Node(std::move(edges)), call_(std::move(call)) {}

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
    released_ = true;
  }

  torch::autograd::variable_list apply(torch::autograd::variable_list&& grads) override {
    std::lock_guard lock(mutex_);
    // The engine turns grad mode on in a backward that shall itself be differentiable.
    if (c10::GradMode::is_enabled()) {
      throw Error(ErrorCode::kInvalidArgument,
                  call_.prefix +
                      "backward was called with create_graph = true, but attention has no second derivative "
                      "here; call it with create_graph = false");
    }
    if (released_) {
      throw Error(ErrorCode::kInvalidArgument,
                  call_.prefix +
                      "backward runs a second time through the same graph; pass retain_graph = true to the "
                      "first backward if that is meant");
    }
    torch::autograd::variable_list inputs_grads(3);
    if (grads[0].defined()) {
      const BackwardArgs args{.dout = grads[0],
                              .q = q_.unpack(),
                              .k = k_.unpack(),
                              .v = v_.unpack(),
                              .out = out_.unpack(getptr()),
                              .lse = lse_.unpack(),
                              .softmax_scale = call_.softmax_scale,
                              .deterministic = call_.deterministic};
      BackwardResult result = guarded(call_.prefix, [&] { return call_.backend->backward(*call_.prepared, args); });
      check_backward_result(result, args.q, args.k, args.v, call_.prefix);
      if (task_should_compute_output(0)) inputs_grads[0] = std::move(result.dq);
      if (task_should_compute_output(1)) inputs_grads[1] = std::move(result.dk);
      if (task_should_compute_output(2)) inputs_grads[2] = std::move(result.dv);
    }
    if (call_.on_backward) call_.on_backward();
    return inputs_grads;
  }

 private:
  Call call_;
  torch::autograd::SavedVariable q_, k_, v_, out_, lse_;
  bool released_ = false;
};

AttendResult run_thd(const std::shared_ptr<const AttentionBackend>& backend, const AttnMaskSpec& mask,
                     const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttendOptions& options,
                     PreparedCache& cache) {
  Call call{.backend = backend,
            .softmax_scale = options.softmax_scale.value_or(1.0 / std::sqrt(static_cast<double>(q.size(2)))),
            .deterministic = options.deterministic,
            .prefix = call_prefix(options.module, backend->info().id),
            .on_backward = options.on_backward};
  const bool wants_grad = torch::autograd::compute_requires_grad(q, k, v);
  ForwardResult result = guarded(call.prefix, [&] {
    // What the backend computes with is its own affair: this node alone enters the graph.
    const at::NoGradGuard no_grad;
    call.prepared = cache.get(backend, mask, shape_of(q, k, v));
    return backend->forward(*call.prepared, {q.detach(), k.detach(), v.detach(), call.softmax_scale});
  });
  check_forward_result(result, q, v, call.prefix);
  if (wants_grad) {
    auto node = std::shared_ptr<AttendBackward>(
        new AttendBackward(std::move(call), torch::autograd::collect_next_edges(q, k, v)), torch::autograd::deleteNode);
    torch::autograd::set_history(result.out, node);
    node->save(q, k, v, result);
  }
  return {result.out, result.lse};
}

}  // namespace

AttendResult run_attention(const std::shared_ptr<const AttentionBackend>& backend, const AttnMaskSpec& mask,
                           const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttendOptions& options,
                           PreparedCache& cache) {
  if (options.layout == Layout::kTHD) return run_thd(backend, mask, q, k, v, options, cache);
  // Views both ways: autograd differentiates them, nothing is copied.
  AttendResult result = run_thd(backend, mask, q.select(0, 0), k.select(0, 0), v.select(0, 0), options, cache);
  result.out = result.out.unsqueeze(0);
  return result;
}

AttendResult attend(const std::shared_ptr<const AttentionBackend>& backend, const AttnMaskSpec& mask,
                    const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttendOptions& options,
                    PreparedCache& cache) {
  const AttentionRequest request = request_for(mask, q, k, v, options);
  const Support support = backend->query(request);
  if (!support.ok()) {
    std::string text = call_prefix(options.module, backend->info().id) + "the backend refuses this call";
    for (const Reason& reason : support.reasons) text += "\n  " + reason.to_string();
    throw Error(ErrorCode::kUnsupported, text);
  }
  return run_attention(backend, mask, q, k, v, options, cache);
}

}  // namespace attnmux
