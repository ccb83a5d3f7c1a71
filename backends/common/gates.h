// What a backend refuses, as a constexpr table of small functions: shared by every backend's query().
//
//   constexpr Gate kGates[] = {masks_within<MaskFamily::kFull, MaskFamily::kCausal>, no_softcap,
//   on_device<DeviceKind::kCpu>}; Support query(const AttentionRequest& request) const noexcept override { return
//   run_gates(kGates, request); }
//
// A gate looks at one aspect of a request and returns a refusal or nothing. Pure functions, any thread.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>

#include "attnmux/request.h"

namespace attnmux {

using Gate = std::optional<Reason> (*)(const AttentionRequest&);

// Every gate is asked, so that all refusals are reported at once.
Support run_gates(std::span<const Gate> gates, const AttentionRequest& request);

// head_dim_v of the request with its default, head_dim, filled in.
int64_t value_head_dim(const AttentionRequest& request);

// Gates without a parameter: what they demand is in their name.
std::optional<Reason> valid_heads(const AttentionRequest& request);      // heads_q a positive multiple of heads_kv
std::optional<Reason> valid_head_dims(const AttentionRequest& request);  // head_dim and head_dim_v at least 1
std::optional<Reason> equal_head_dims(const AttentionRequest& request);  // head_dim_v == head_dim
std::optional<Reason> no_cross_lengths(const AttentionRequest& request);
std::optional<Reason> no_empty_rows(const AttentionRequest& request);
std::optional<Reason> single_rank(const AttentionRequest& request);  // cp_size == 1
std::optional<Reason> no_softcap(const AttentionRequest& request);
std::optional<Reason> no_attention_sink(const AttentionRequest& request);
std::optional<Reason> no_dropout(const AttentionRequest& request);
std::optional<Reason> no_deterministic_backward(const AttentionRequest& request);  // not in training
std::optional<Reason> int32_tokens(const AttentionRequest& request);  // below 2^31; an unknown length passes

namespace gates_internal {
std::optional<Reason> masks_within(const AttentionRequest& request, std::initializer_list<MaskFamily> taken);
std::optional<Reason> dtype_among(const AttentionRequest& request, std::initializer_list<DType> taken);
std::optional<Reason> on_device(const AttentionRequest& request, DeviceKind taken);
std::optional<Reason> at_most_tokens(const AttentionRequest& request, int64_t limit);
std::optional<Reason> at_least_arch(const AttentionRequest& request, int32_t least);
}  // namespace gates_internal

// Every family of the request lies in one of `taken`.
template <MaskFamily... taken>
std::optional<Reason> masks_within(const AttentionRequest& request) {
  return gates_internal::masks_within(request, {taken...});
}

template <DType... taken>
std::optional<Reason> dtype_among(const AttentionRequest& request) {
  return gates_internal::dtype_among(request, {taken...});
}

template <DeviceKind taken>
std::optional<Reason> on_device(const AttentionRequest& request) {
  return gates_internal::on_device(request, taken);
}

// For backends whose memory grows with tokens squared. An unknown length (0) passes.
template <int64_t limit>
std::optional<Reason> at_most_tokens(const AttentionRequest& request) {
  return gates_internal::at_most_tokens(request, limit);
}

// The GPU's compute capability as in AttentionRequest::device_arch. An unknown one (0) passes.
template <int32_t least>
std::optional<Reason> at_least_arch(const AttentionRequest& request) {
  return gates_internal::at_least_arch(request, least);
}

}  // namespace attnmux
