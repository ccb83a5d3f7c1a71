#include "attnmux/attend.h"

#include <ATen/ATen.h>

#include "attend_call.h"
#include "attend_node.h"
#include "attnmux/error.h"
#include "backend_call.h"
#include "call_checks.h"

namespace attnmux {
namespace {

AttendResult run_thd(const std::shared_ptr<const AttentionBackend>& backend, const AttnMaskSpec& mask,
                     const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttendOptions& options,
                     PreparedCache& cache) {
  const BackendCall call(backend, q, options);
  const std::shared_ptr<const Prepared> prepared = call.prepare(cache, mask, q, k, v);
  ForwardResult result = call.forward(*prepared, q, k, v);
  if (wants_gradient(q, k, v)) {
    record({.call = call,
            .backward = [call, prepared](const BackwardArgs& args) { return call.backward(*prepared, args); },
            .on_backward = options.on_backward},
           q, k, v, result);
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
  require_support(*backend, request_for(mask, q, k, v, options), options.module);
  return run_attention(backend, mask, q, k, v, options, cache);
}

}  // namespace attnmux
