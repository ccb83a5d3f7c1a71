#include "conformance/subject.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <sstream>
#include <vector>

#include "attnmux/device.h"
#include "attnmux/error.h"
#include "attnmux/mask_family.h"
#include "attnmux/selection.h"
#include "conformance/memory_watch.h"
#include "conformance/truth.h"

namespace attnmux::conformance {
namespace {

// Every byte behind a tensor, also those between its elements.
std::vector<uint8_t> bytes_of(const at::Tensor& tensor) {
  if (!tensor.defined()) return {};
  const at::Tensor whole = at::empty({0}, at::TensorOptions(at::kByte).device(tensor.device()))
                               .set_(tensor.storage(), 0, {static_cast<int64_t>(tensor.storage().nbytes())}, {1})
                               .cpu();
  std::vector<uint8_t> bytes(static_cast<size_t>(whole.numel()));
  if (!bytes.empty()) std::memcpy(bytes.data(), whole.const_data_ptr(), bytes.size());
  return bytes;
}

// The inputs of a call as they were before it.
class Unchanged {
 public:
  explicit Unchanged(std::vector<std::pair<const char*, at::Tensor>> tensors) : tensors_(std::move(tensors)) {
    for (const auto& [name, tensor] : tensors_) before_.push_back(bytes_of(tensor));
  }
  void check(CaseResult& result) const {
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (bytes_of(tensors_[i].second) != before_[i]) {
        result.fail(Check::kInputsUnchanged, std::string(tensors_[i].first) + " was written by the call");
      }
    }
  }

 private:
  std::vector<std::pair<const char*, at::Tensor>> tensors_;
  std::vector<std::vector<uint8_t>> before_;
};

// Runs a call; false where it threw.
bool guarded(Refusal refusal, CaseResult& result, const std::function<void()>& call) {
  const auto threw = [&](const std::string& text, bool is_error) {
    if (refusal == Refusal::kForbidden) {
      result.fail(Check::kRefusedAfterYes, "query() took the request, the call threw: " + text);
    } else if (!is_error) {
      result.fail(Check::kErrorType, "threw something else than an attnmux::Error: " + text);
    }
  };
  try {
    call();
    return true;
  } catch (const Error& error) {
    threw(error.what(), true);
  } catch (const c10::Error& error) {
    threw(error.what_without_backtrace(), false);
  } catch (const std::exception& error) {
    threw(error.what(), false);
  } catch (...) {
    threw("no exception of the standard library", false);
  }
  return false;
}

std::string text_of(at::IntArrayRef sizes) {
  std::ostringstream text;
  text << sizes;
  return text.str();
}

// True where the tensor can be compared.
bool well_formed(const char* name, const at::Tensor& got, at::IntArrayRef sizes, at::ScalarType dtype,
                 const at::Device& device, CaseResult& result) {
  if (!got.defined() || got.sizes() != sizes) {
    result.fail(Check::kShape, std::string(name) + " is " + (got.defined() ? text_of(got.sizes()) : "undefined") +
                                   ", promised is " + text_of(sizes));
    return false;
  }
  if (got.scalar_type() != dtype) {
    result.fail(Check::kShape, std::string(name) + " has dtype " + at::toString(got.scalar_type()) + ", promised is " +
                                   at::toString(dtype));
  }
  if (got.device() != device) {
    result.fail(Check::kShape, std::string(name) + " is on " + got.device().str() + ", promised is " + device.str());
  }
  return true;
}

bool has_empty_rows(const at::Tensor& allowed) { return allowed.any(1).logical_not().any().item<bool>(); }

}  // namespace

Setup::Setup(const Case& from)
    : c(from), mask(mask_of(from)), allowed(allowed_matrix(from, mask)), in(inputs_of(from, mask)) {}

bool is_training(const Case& c) {
  return c.family == Family::kBackward || c.family == Family::kCp || c.check.starts_with("grad");
}

at::ScalarType scalar_type(DType dtype) {
  switch (dtype) {
    case DType::kBFloat16: return at::kBFloat16;
    case DType::kFloat16: return at::kHalf;
    case DType::kFloat64: return at::kDouble;
    case DType::kFloat32: return at::kFloat;
  }
  return at::kFloat;
}

AttentionShape shape_of(const Case& c, const at::Device& device) {
  return {.heads_q = c.hq,
          .heads_kv = c.hk,
          .head_dim = c.d,
          .head_dim_v = c.head_dim_v(),
          .dtype = c.dt,
          .device = device.is_cuda() ? DeviceKind::kCuda : DeviceKind::kCpu,
          .device_index = device.is_cuda() ? device.index() : 0};
}

AttentionRequest request_of(const Setup& setup, const at::Device& device) {
  const Case& c = setup.c;
  const bool halves = c.check == "merged" || c.check == "merge";
  const AttentionRequest request{.masks = {classify(setup.mask.spec)},
                                 .cross_lengths = c.sq != c.sk,
                                 .empty_rows = has_empty_rows(setup.allowed),
                                 .dtype = c.dt,
                                 .heads_q = c.hq,
                                 .heads_kv = c.hk,
                                 .head_dim = c.d,
                                 .head_dim_v = c.head_dim_v(),
                                 .max_tokens = std::max(c.sq, c.sk),
                                 .layout = Layout::kTHD,
                                 .device = device.is_cuda() ? DeviceKind::kCuda : DeviceKind::kCpu,
                                 .device_arch = device_arch(device),
                                 .training = is_training(c),
                                 .deterministic = c.family == Family::kDeterminism || c.check == "determinism",
                                 .cp_size = c.family == Family::kCp ? c.cp
                                            : halves                ? 2
                                                                    : 1};
  return c.family == Family::kCp ? request_of_parts(request) : request;
}

bool takes(const Subject& subject, const AttentionRequest& request, CaseResult& result) {
  const Support support = subject.backend->query(request);
  if (support.ok()) return true;
  std::vector<std::string> codes;
  for (const Reason& reason : support.reasons) {
    codes.emplace_back(to_string(reason.code));
    if (reason.got.empty() || reason.want.empty()) {
      result.fail(Check::kQueryReasons,
                  "the refusal " + codes.back() + " does not say what was asked and what is taken");
    }
  }
  result.decline(codes);
  return false;
}

bool takes(const Subject& subject, const Setup& setup, CaseResult& result) {
  return takes(subject, request_of(setup, subject.device), result);
}

Inputs on_device(const Inputs& in, const at::Device& device) {
  return {.q = in.q.to(device),
          .k = in.k.to(device),
          .v = in.v.to(device),
          .dout = in.dout.to(device),
          .softmax_scale = in.softmax_scale};
}

std::optional<ForwardResult> forward(const Subject& subject, const Case& c, const AttnMaskSpec& mask, const Inputs& in,
                                     Refusal refusal, CaseResult& result) {
  const Unchanged unchanged({{"q", in.q}, {"k", in.k}, {"v", in.v}});
  ForwardResult got;
  const bool ran = guarded(refusal, result, [&] {
    const auto prepared = subject.backend->prepare(mask, shape_of(c, subject.device));
    got = subject.backend->forward(*prepared, {.q = in.q, .k = in.k, .v = in.v, .softmax_scale = in.softmax_scale});
    synchronize(subject.device);
  });
  unchanged.check(result);
  if (const std::string broken = broken_guards(); !broken.empty()) result.fail(Check::kGuard, broken);
  if (!ran) return std::nullopt;
  const at::ScalarType lse = c.dt == DType::kFloat64 ? at::kDouble : at::kFloat;
  const bool out_formed =
      well_formed("out", got.out, {c.sq, c.hq, c.head_dim_v()}, scalar_type(c.dt), in.q.device(), result);
  if (!well_formed("lse", got.lse, {c.sq, c.hq}, lse, in.q.device(), result) || !out_formed) return std::nullopt;
  return got;
}

std::optional<BackwardResult> backward(const Subject& subject, const Case& c, const AttnMaskSpec& mask,
                                       const Inputs& in, const ForwardResult& from, Refusal refusal,
                                       CaseResult& result) {
  const Unchanged unchanged(
      {{"q", in.q}, {"k", in.k}, {"v", in.v}, {"dout", in.dout}, {"out", from.out}, {"lse", from.lse}});
  BackwardResult got;
  const bool ran = guarded(refusal, result, [&] {
    const auto prepared = subject.backend->prepare(mask, shape_of(c, subject.device));
    got = subject.backend->backward(*prepared, {.dout = in.dout,
                                                .q = in.q,
                                                .k = in.k,
                                                .v = in.v,
                                                .out = from.out,
                                                .lse = from.lse,
                                                .softmax_scale = in.softmax_scale,
                                                .deterministic = c.family == Family::kDeterminism});
    synchronize(subject.device);
  });
  unchanged.check(result);
  if (const std::string broken = broken_guards(); !broken.empty()) result.fail(Check::kGuard, broken);
  if (!ran) return std::nullopt;
  const at::ScalarType dtype = scalar_type(c.dt);
  const at::Device device = in.q.device();
  const bool formed = well_formed("dq", got.dq, in.q.sizes(), dtype, device, result) &
                      well_formed("dk", got.dk, in.k.sizes(), dtype, device, result) &
                      well_formed("dv", got.dv, in.v.sizes(), dtype, device, result);
  if (!formed) return std::nullopt;
  return got;
}

}  // namespace attnmux::conformance
