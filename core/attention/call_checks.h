// The checks around one attention call: of its tensors before, and of what the backend returned after.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "attnmux/attend.h"
#include "mask_facts.h"

namespace attnmux {

// "attention of model.layers.0.self_attn with backend magi: "; either part may be empty.
std::string call_prefix(const std::string& module, const std::string& backend);

// How many tokens a call takes, and who says so.
struct ExpectedTokens {
  int64_t q = 0;
  int64_t k = 0;
  const char* q_source = "";
  const char* k_source = "";
};
ExpectedTokens tokens_of(const AttnMaskSpec& mask);

// Throws Error(kInvalidArgument) naming tensor, dimension, got and expected.
void check_inputs(const ExpectedTokens& tokens, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const AttendOptions& options);

// REQUIRES: check_inputs() passed.
AttentionShape shape_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);
AttentionRequest request_for(const MaskFacts& facts, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const AttendOptions& options);

// Throws Error(kUnsupported) with all reasons of the backend where it refuses.
void require_support(const AttentionBackend& backend, const AttentionRequest& request, const std::string& module);

// Throw Error(kContractBroken) naming the tensor, what was returned and what is promised. Tensors are THD.
void check_forward_result(const ForwardResult& result, const at::Tensor& q, const at::Tensor& v,
                          const std::string& prefix);
void check_backward_result(const BackwardResult& result, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const std::string& prefix);

}  // namespace attnmux
