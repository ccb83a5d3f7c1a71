#include "backend_call.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <new>

#include "attnmux/error.h"
#include "attnmux/launch_mark.h"
#include "call_checks.h"
#include "caller_scope.h"

namespace attnmux {
namespace {

// A GPU works behind the host: what fails in a call may have been launched before it.
Error gpu_fault(const std::string& prefix, const std::string& text) {
  return Error(ErrorCode::kDeviceError, prefix +
                                            "the GPU reports a fault, of this call or of one before it since the last "
                                            "synchronisation: " +
                                            text + fault_origin());
}

// Runs `call` of a backend that took the request. A refusal now contradicts its query(); lack of memory gets its code.
template <class Call>
auto guarded(const std::string& prefix, const Call& call) {
  // What the backend computes with is its own affair: one node for the whole call enters the graph.
  const at::NoGradGuard no_grad;
  try {
    return call();
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kDeviceError) throw gpu_fault(prefix, error.what());
    if (error.code() != ErrorCode::kUnsupported && error.code() != ErrorCode::kInvalidArgument) throw;
    throw Error(ErrorCode::kContractBroken,
                prefix + "query() took this request, yet the call was refused: " + error.what());
  } catch (const c10::OutOfMemoryError& error) {
    throw Error(ErrorCode::kOutOfMemory, prefix + error.what_without_backtrace());
  } catch (const c10::AcceleratorError& error) {
    throw gpu_fault(prefix, error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::kOutOfMemory, prefix + "out of memory");
  }
}

}  // namespace

BackendCall::BackendCall(std::shared_ptr<const AttentionBackend> chosen, const at::Tensor& q,
                         const AttendOptions& options)
    : backend(std::move(chosen)),
      softmax_scale(options.softmax_scale.value_or(1.0 / std::sqrt(static_cast<double>(q.size(-1))))),
      deterministic(options.deterministic),
      name(options.module.empty() ? backend->info().id : options.module),
      prefix(call_prefix(options.module, backend->info().id)) {}

std::shared_ptr<const Prepared> BackendCall::prepare(PreparedCache& cache, const AttnMaskSpec& mask,
                                                     const at::Tensor& q, const at::Tensor& k,
                                                     const at::Tensor& v) const {
  return guarded(prefix, [&] { return cache.get(backend, mask, shape_of(q, k, v)); });
}

ForwardResult BackendCall::forward(const Prepared& prepared, const at::Tensor& q, const at::Tensor& k,
                                   const at::Tensor& v) const {
  const CallerScope caller(name + ", forward");
  ForwardResult result = guarded(prefix, [&] {
    return backend->forward(prepared, {q.detach(), k.detach(), v.detach(), softmax_scale});
  });
  check_forward_result(result, q, v, prefix);
  return result;
}

BackwardResult BackendCall::backward(const Prepared& prepared, const BackwardArgs& args) const {
  const CallerScope caller(name + ", backward");
  BackwardResult result = guarded(prefix, [&] { return backend->backward(prepared, args); });
  check_backward_result(result, args.q, args.k, args.v, prefix);
  return result;
}

}  // namespace attnmux
