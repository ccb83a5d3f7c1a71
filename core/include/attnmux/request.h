// What a module will ask of a backend, as a plain value without tensors, and the backend's answer.
//
//   Support support = backend.query({.masks = {MaskFamily::kVarlenCausal}, .dtype = DType::kBFloat16,
//                                    .heads_q = 32, .heads_kv = 8, .head_dim = 128});
//   if (!support.ok()) for (const Reason& reason : support.reasons) log(reason.to_string());
//
// Selection runs on these before weights load. Plain data, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "attnmux/export.h"
#include "attnmux/mask_family.h"

namespace attnmux {

enum class DType : uint8_t { kFloat32, kBFloat16, kFloat16, kFloat64 };
enum class DeviceKind : uint8_t { kCpu, kCuda };
// kTHD: [tokens, heads, head_dim]. kBSHD: [batch = 1, tokens, heads, head_dim].
enum class Layout : uint8_t { kTHD, kBSHD };

ATTNMUX_API std::string_view to_string(DType dtype);        // "fp32", "bf16", "fp16", "fp64"
ATTNMUX_API std::string_view to_string(DeviceKind device);  // "cpu", "cuda"
ATTNMUX_API std::string_view to_string(Layout layout);      // "thd", "bshd"

struct AttentionRequest {
  MaskFamilySet masks;         // every family that a call may bring
  bool cross_lengths = false;  // total_q may differ from total_k
  bool empty_rows = false;     // a query may attend no key
  DType dtype = DType::kFloat32;
  int64_t heads_q = 1;
  int64_t heads_kv = 1;
  int64_t head_dim = 64;    // of q and k
  int64_t head_dim_v = 0;   // of v and out; 0: as head_dim
  int64_t max_tokens = 0;   // longest packed sequence; 0: unknown
  Layout layout = Layout::kTHD;
  DeviceKind device = DeviceKind::kCpu;
  int32_t device_arch = 0;  // 90 for sm_90; 0 on CPU
  bool training = false;    // backward will be called
  bool deterministic = false;
  int64_t cp_size = 1;
  double softcap = 0;  // 0: none
  bool attention_sink = false;
  double dropout = 0;
};

enum class ReasonCode : uint8_t {
  kMaskType,
  kMaskCrossLengths,
  kMaskEmptyRows,
  kDType,
  kHeadDim,
  kHeadDimV,
  kHeads,
  kLength,
  kLayout,
  kDevice,
  kDeviceArch,
  kTraining,
  kDeterministic,
  kCpSize,
  kSoftcap,
  kSink,
  kDropout,
  kBackend,  // the registry has no backend of this id
};

// Stable string ids, e.g. "mask.type", "dtype", "head_dim", "device.arch".
ATTNMUX_API std::string_view to_string(ReasonCode code);

struct ATTNMUX_API Reason {
  ReasonCode code;
  std::string got;   // what the request asks, "window"
  std::string want;  // what the backend takes, "full, causal, varlen_full, varlen_causal"
  std::string hint;  // what to change
  // "mask.type: got window, want full or causal; choose backend magi for this module"
  std::string to_string() const;
};

// No refusal means supported; there is no second flag that could disagree.
struct Support {
  std::vector<Reason> reasons;
  bool ok() const { return reasons.empty(); }
};

}  // namespace attnmux
