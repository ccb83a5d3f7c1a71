#include "common/gates.h"

#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace attnmux {
namespace {

constexpr std::string_view kOtherBackend = "choose another backend for this module";

Reason refuse(ReasonCode code, std::string got, std::string want, std::string_view hint = kOtherBackend) {
  return {.code = code, .got = std::move(got), .want = std::move(want), .hint = std::string(hint)};
}

// "a", "a or b", "a, b or c"
template <class T>
std::string alternatives(std::initializer_list<T> values) {
  std::string text;
  size_t left = values.size();
  for (T value : values) {
    text += to_string(value);
    --left;
    if (left > 0) text += left == 1 ? " or " : ", ";
  }
  return text;
}

std::string number(double value) {
  std::string text = std::to_string(value);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text;
}

}  // namespace

Support run_gates(std::span<const Gate> gates, const AttentionRequest& request) {
  Support support;
  for (Gate gate : gates) {
    if (std::optional<Reason> reason = gate(request)) support.reasons.push_back(*std::move(reason));
  }
  return support;
}

int64_t value_head_dim(const AttentionRequest& request) {
  return request.head_dim_v == 0 ? request.head_dim : request.head_dim_v;
}

std::optional<Reason> valid_heads(const AttentionRequest& request) {
  if (request.heads_q > 0 && request.heads_kv > 0 && request.heads_q % request.heads_kv == 0) return std::nullopt;
  return refuse(ReasonCode::kHeads,
                std::to_string(request.heads_q) + " query and " + std::to_string(request.heads_kv) + " key/value heads",
                "query heads a positive multiple of key/value heads", "check the model's head counts");
}

std::optional<Reason> valid_head_dims(const AttentionRequest& request) {
  if (request.head_dim < 1)
    return refuse(ReasonCode::kHeadDim, std::to_string(request.head_dim), "at least 1", "check the model's head_dim");
  if (value_head_dim(request) < 1)
    return refuse(ReasonCode::kHeadDimV, std::to_string(request.head_dim_v), "at least 1",
                  "check the model's head_dim_v");
  return std::nullopt;
}

std::optional<Reason> equal_head_dims(const AttentionRequest& request) {
  if (value_head_dim(request) == request.head_dim) return std::nullopt;
  return refuse(ReasonCode::kHeadDimV, std::to_string(request.head_dim_v),
                std::to_string(request.head_dim) + ", equal to head_dim");
}

std::optional<Reason> no_cross_lengths(const AttentionRequest& request) {
  if (!request.cross_lengths) return std::nullopt;
  return refuse(ReasonCode::kMaskCrossLengths, "total_q may differ from total_k", "total_q == total_k");
}

std::optional<Reason> no_empty_rows(const AttentionRequest& request) {
  if (!request.empty_rows) return std::nullopt;
  return refuse(ReasonCode::kMaskEmptyRows, "a query may attend no key", "every query attends a key");
}

std::optional<Reason> single_rank(const AttentionRequest& request) {
  if (request.cp_size == 1) return std::nullopt;
  return refuse(ReasonCode::kCpSize, std::to_string(request.cp_size), "1",
                "run this module at cp_size 1 or choose another backend for it");
}

std::optional<Reason> no_softcap(const AttentionRequest& request) {
  if (request.softcap == 0) return std::nullopt;
  return refuse(ReasonCode::kSoftcap, number(request.softcap), "0 (none)");
}

std::optional<Reason> no_attention_sink(const AttentionRequest& request) {
  if (!request.attention_sink) return std::nullopt;
  return refuse(ReasonCode::kSink, "a learned sink logit", "none");
}

std::optional<Reason> no_dropout(const AttentionRequest& request) {
  if (request.dropout == 0) return std::nullopt;
  return refuse(ReasonCode::kDropout, number(request.dropout), "0", "set attention_dropout to 0");
}

std::optional<Reason> no_deterministic_backward(const AttentionRequest& request) {
  if (!request.deterministic || !request.training) return std::nullopt;
  return refuse(ReasonCode::kDeterministic, "a deterministic backward", "gradients that are summed in any order",
                "choose another backend, or drop require = { deterministic = true }");
}

std::optional<Reason> int32_tokens(const AttentionRequest& request) {
  constexpr int64_t kLimit = std::numeric_limits<int32_t>::max();
  if (request.max_tokens <= kLimit) return std::nullopt;
  return refuse(ReasonCode::kLength, std::to_string(request.max_tokens) + " tokens",
                "at most " + std::to_string(kLimit) + " tokens, counted in 32 bits", "shorten the packed sequence");
}

namespace gates_internal {

std::optional<Reason> masks_within(const AttentionRequest& request, std::initializer_list<MaskFamily> taken) {
  const MaskFamilySet accepted(taken);
  MaskFamilySet refused;
  for (auto family : {MaskFamily::kFull, MaskFamily::kCausal, MaskFamily::kVarlenFull, MaskFamily::kVarlenCausal,
                      MaskFamily::kSlidingWindow, MaskFamily::kArbitrary}) {
    if (request.masks.has(family) && !accepted.covers(family)) refused.insert(family);
  }
  if (refused.empty()) return std::nullopt;
  return refuse(ReasonCode::kMaskType, refused.to_string(), alternatives(taken));
}

std::optional<Reason> dtype_among(const AttentionRequest& request, std::initializer_list<DType> taken) {
  for (DType dtype : taken) {
    if (dtype == request.dtype) return std::nullopt;
  }
  return refuse(ReasonCode::kDType, std::string(to_string(request.dtype)), alternatives(taken),
                "change the model's dtype or choose another backend for this module");
}

std::optional<Reason> on_device(const AttentionRequest& request, DeviceKind taken) {
  if (request.device == taken) return std::nullopt;
  return refuse(ReasonCode::kDevice, std::string(to_string(request.device)), std::string(to_string(taken)),
                "move the model to this device or choose another backend for this module");
}

std::optional<Reason> at_most_tokens(const AttentionRequest& request, int64_t limit) {
  if (request.max_tokens <= limit) return std::nullopt;
  return refuse(ReasonCode::kLength, std::to_string(request.max_tokens) + " tokens",
                "at most " + std::to_string(limit) + " tokens, for memory grows with their square",
                "shorten the sequences or choose a backend with linear memory");
}

std::optional<Reason> at_least_arch(const AttentionRequest& request, int32_t least) {
  if (request.device_arch == 0 || request.device_arch >= least) return std::nullopt;
  return refuse(ReasonCode::kDeviceArch, "sm_" + std::to_string(request.device_arch),
                "sm_" + std::to_string(least) + " or newer", "choose another backend on this GPU");
}

}  // namespace gates_internal
}  // namespace attnmux
