#include "call_checks.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <sstream>

#include "attnmux/device.h"
#include "attnmux/error.h"

namespace attnmux {
namespace {

std::string text_of(at::IntArrayRef sizes) {
  std::ostringstream text;
  text << sizes;
  return text.str();
}

std::string text_of(at::ScalarType type) { return c10::toString(type); }

std::optional<DType> dtype_of(at::ScalarType type) {
  switch (type) {
    case at::kFloat: return DType::kFloat32;
    case at::kBFloat16: return DType::kBFloat16;
    case at::kHalf: return DType::kFloat16;
    case at::kDouble: return DType::kFloat64;
    default: return std::nullopt;
  }
}

// Dimensions of a tensor in THD terms, whatever its layout: BSHD has a batch of 1 in front.
struct Dims {
  int64_t tokens, heads, head_dim;
};

class InputChecks {
 public:
  InputChecks(const AttendOptions& options) : options_(options), prefix_(call_prefix(options.module, "")) {}

  [[noreturn]] void fail(const std::string& text) const { throw Error(ErrorCode::kInvalidArgument, prefix_ + text); }

  Dims dims(const at::Tensor& tensor, const char* name) const {
    if (!tensor.defined()) fail(std::string(name) + " is undefined");
    if (tensor.layout() != at::kStrided) fail(std::string(name) + " must be a dense tensor");
    const bool thd = options_.layout == Layout::kTHD;
    if (tensor.dim() != (thd ? 3 : 4)) {
      fail(std::string(name) + " has shape " + text_of(tensor.sizes()) + ", expected " +
           (thd ? "[tokens, heads, head_dim] for layout thd" : "[1, tokens, heads, head_dim] for layout bshd"));
    }
    if (!thd && tensor.size(0) != 1) {
      fail(std::string(name) + ": layout bshd takes batch 1, got " + std::to_string(tensor.size(0)) + " in shape " +
           text_of(tensor.sizes()) + "; pack the sequences into one and give them a varlen mask");
    }
    const int64_t first = thd ? 0 : 1;
    const Dims result{tensor.size(first), tensor.size(first + 1), tensor.size(first + 2)};
    if (result.heads < 1 || result.head_dim < 1) {
      fail(std::string(name) + " has shape " + text_of(tensor.sizes()) + ": heads and head_dim must be at least 1");
    }
    return result;
  }

  void equal(int64_t got, int64_t want, const std::string& what, const std::string& why) const {
    if (got != want) fail(what + " = " + std::to_string(got) + ", expected " + std::to_string(want) + " (" + why + ")");
  }

  void same_kind(const at::Tensor& tensor, const at::Tensor& q, const char* name) const {
    if (tensor.scalar_type() != q.scalar_type()) {
      fail(std::string(name) + " has dtype " + text_of(tensor.scalar_type()) + ", q has " + text_of(q.scalar_type()) +
           "; they must agree");
    }
    if (tensor.device() != q.device()) {
      fail(std::string(name) + " is on " + tensor.device().str() + ", q is on " + q.device().str() +
           "; they must agree");
    }
  }

 private:
  const AttendOptions& options_;
  std::string prefix_;
};

void check_returned(const at::Tensor& tensor, const char* name, at::IntArrayRef sizes, at::ScalarType dtype,
                    const at::Device& device, const std::string& prefix) {
  const auto fail = [&](const std::string& got, const std::string& want) {
    throw Error(ErrorCode::kContractBroken, prefix + "the backend returned " + name + " " + got + ", promised is " +
                                                want + "; this is an error of the backend");
  };
  if (!tensor.defined()) fail("undefined", "a tensor of shape " + text_of(sizes));
  if (tensor.sizes() != sizes) fail("of shape " + text_of(tensor.sizes()), text_of(sizes));
  if (tensor.scalar_type() != dtype) fail("of dtype " + text_of(tensor.scalar_type()), text_of(dtype));
  if (tensor.device() != device) fail("on " + tensor.device().str(), device.str());
}

}  // namespace

std::string call_prefix(const std::string& module, const std::string& backend) {
  std::string text = "attention";
  if (!module.empty()) text += " of " + module;
  if (!backend.empty()) text += " with backend \"" + backend + "\"";
  return text + ": ";
}

ExpectedTokens tokens_of(const AttnMaskSpec& mask) {
  return {mask.total_q(), mask.total_k(), "the mask's total_q", "the mask's total_k"};
}

void check_inputs(const ExpectedTokens& tokens, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const AttendOptions& options) {
  const InputChecks checks(options);
  const Dims dq = checks.dims(q, "q"), dk = checks.dims(k, "k"), dv = checks.dims(v, "v");
  checks.equal(dq.tokens, tokens.q, "q tokens", tokens.q_source);
  checks.equal(dk.tokens, tokens.k, "k tokens", tokens.k_source);
  checks.equal(dv.tokens, dk.tokens, "v tokens", "as k");
  checks.equal(dk.head_dim, dq.head_dim, "k head_dim", "as q");
  checks.equal(dv.heads, dk.heads, "v heads", "as k");
  if (dq.heads % dk.heads != 0) {
    checks.fail("q has " + std::to_string(dq.heads) + " heads, k and v have " + std::to_string(dk.heads) +
                "; heads of q must be a multiple of those of k and v");
  }
  if (!dtype_of(q.scalar_type())) {
    checks.fail("q has dtype " + text_of(q.scalar_type()) + ", expected Float, BFloat16, Half or Double");
  }
  if (!q.is_cpu() && !q.is_cuda()) checks.fail("q is on " + q.device().str() + ", expected cpu or cuda");
  checks.same_kind(k, q, "k");
  checks.same_kind(v, q, "v");
  if (options.softmax_scale && !std::isfinite(*options.softmax_scale)) {
    checks.fail("softmax_scale is " + std::to_string(*options.softmax_scale) + ", expected a finite number");
  }
}

AttentionShape shape_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  return {.heads_q = q.size(-2),
          .heads_kv = k.size(-2),
          .head_dim = q.size(-1),
          .head_dim_v = v.size(-1),
          .dtype = *dtype_of(q.scalar_type()),
          .device = q.is_cuda() ? DeviceKind::kCuda : DeviceKind::kCpu,
          .device_index = q.is_cuda() ? q.device().index() : 0};
}

AttentionRequest request_for(const MaskFacts& facts, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const AttendOptions& options) {
  const AttentionShape shape = shape_of(q, k, v);
  return {.masks = {facts.family},
          .cross_lengths = facts.cross_lengths,
          .empty_rows = facts.empty_rows,
          .dtype = shape.dtype,
          .heads_q = shape.heads_q,
          .heads_kv = shape.heads_kv,
          .head_dim = shape.head_dim,
          .head_dim_v = shape.head_dim_v,
          .max_tokens = std::max(q.size(-3), k.size(-3)),
          .layout = options.layout,
          .device = shape.device,
          .device_arch = device_arch(q.device()),
          .training = c10::GradMode::is_enabled() && (q.requires_grad() || k.requires_grad() || v.requires_grad()),
          .deterministic = options.deterministic};
}

AttentionRequest request_for(const AttnMaskSpec& mask, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const AttendOptions& options) {
  check_inputs(tokens_of(mask), q, k, v, options);
  return request_for(facts_of(mask), q, k, v, options);
}

void require_support(const AttentionBackend& backend, const AttentionRequest& request, const std::string& module) {
  const Support support = backend.query(request);
  if (support.ok()) return;
  std::string text = call_prefix(module, backend.info().id) + "the backend refuses this call";
  for (const Reason& reason : support.reasons) text += "\n  " + reason.to_string();
  throw Error(ErrorCode::kUnsupported, text);
}

void check_forward_result(const ForwardResult& result, const at::Tensor& q, const at::Tensor& v,
                          const std::string& prefix) {
  check_returned(result.out, "out", {q.size(0), q.size(1), v.size(2)}, q.scalar_type(), q.device(), prefix);
  check_returned(result.lse, "lse", {q.size(0), q.size(1)}, q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat,
                 q.device(), prefix);
}

void check_backward_result(const BackwardResult& result, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const std::string& prefix) {
  check_returned(result.dq, "dq", q.sizes(), q.scalar_type(), q.device(), prefix);
  check_returned(result.dk, "dk", k.sizes(), k.scalar_type(), k.device(), prefix);
  check_returned(result.dv, "dv", v.sizes(), v.scalar_type(), v.device(), prefix);
}

}  // namespace attnmux
