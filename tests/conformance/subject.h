// What is under test, and one call of a backend as the suite makes them: never trusted, always looked after.
//
//   Setup setup(c);                                    // mask, tensors and request of a case
//   if (!takes(subject, setup, result)) return;        // DECLINED, with reasons
//   std::optional<ForwardResult> out = forward(subject, setup, Refusal::kForbidden, result);
//
// Both calls check shapes, that no bit of the inputs changed and that no guard was written, and turn exceptions into
// failures. Any thread, with a result of its own.
#pragma once

#include <c10/core/Device.h>

#include <memory>
#include <optional>
#include <string>

#include "attnmux/backend.h"
#include "attnmux/cp_group.h"
#include "conformance/case.h"
#include "conformance/case_mask.h"
#include "conformance/case_result.h"
#include "conformance/values.h"

namespace attnmux::conformance {

struct Subject {
  std::string file;  // the plugin
  std::string id;    // the backend, or the group of ranks
  std::shared_ptr<const AttentionBackend> backend;
  std::shared_ptr<const CpGroupFactory> group;  // one of both; groups come here with cases of family meta alone
  at::Device device = at::Device(at::kCPU);
};

struct Setup {
  explicit Setup(const Case& c);
  Case c;
  CaseMask mask;
  at::Tensor allowed;  // [sq, sk] bool
  Inputs in;           // on the CPU
};

// Whether backward will be called: the families bwd and cp, and checks named "grad...".
bool is_training(const Case& c);

AttentionRequest request_of(const Setup& setup, const at::Device& device);
AttentionShape shape_of(const Case& c, const at::Device& device);
at::ScalarType scalar_type(DType dtype);

// Asks query(); on a refusal marks the result DECLINED and checks that it says why.
bool takes(const Subject& subject, const Setup& setup, CaseResult& result);
bool takes(const Subject& subject, const AttentionRequest& request, CaseResult& result);

// kForbidden: query() said yes, the call must work. kAllowed: it may throw an Error instead, before anything is
// written.
enum class Refusal : uint8_t { kForbidden, kAllowed };

// Nothing where the call threw or returned what cannot be compared; the result says so, except for an allowed refusal.
// `in` is on the subject's device.
std::optional<ForwardResult> forward(const Subject& subject, const Case& c, const AttnMaskSpec& mask, const Inputs& in,
                                     Refusal refusal, CaseResult& result);
std::optional<BackwardResult> backward(const Subject& subject, const Case& c, const AttnMaskSpec& mask,
                                       const Inputs& in, const ForwardResult& forward, Refusal refusal,
                                       CaseResult& result);

Inputs on_device(const Inputs& in, const at::Device& device);

}  // namespace attnmux::conformance
