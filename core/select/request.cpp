#include "attnmux/request.h"

namespace attnmux {

std::string_view to_string(DType dtype) {
  switch (dtype) {
    case DType::kFloat32: return "fp32";
    case DType::kBFloat16: return "bf16";
    case DType::kFloat16: return "fp16";
    case DType::kFloat64: return "fp64";
  }
  return "unknown";
}

std::string_view to_string(DeviceKind device) { return device == DeviceKind::kCpu ? "cpu" : "cuda"; }

std::string_view to_string(Layout layout) { return layout == Layout::kTHD ? "thd" : "bshd"; }

std::string_view to_string(ReasonCode code) {
  switch (code) {
    case ReasonCode::kMaskType: return "mask.type";
    case ReasonCode::kMaskCrossLengths: return "mask.cross_lengths";
    case ReasonCode::kMaskEmptyRows: return "mask.empty_rows";
    case ReasonCode::kDType: return "dtype";
    case ReasonCode::kHeadDim: return "head_dim";
    case ReasonCode::kHeadDimV: return "head_dim_v";
    case ReasonCode::kHeads: return "heads";
    case ReasonCode::kLength: return "length";
    case ReasonCode::kLayout: return "layout";
    case ReasonCode::kDevice: return "device";
    case ReasonCode::kDeviceArch: return "device.arch";
    case ReasonCode::kTraining: return "training";
    case ReasonCode::kDeterministic: return "deterministic";
    case ReasonCode::kCpSize: return "cp_size";
    case ReasonCode::kSoftcap: return "softcap";
    case ReasonCode::kSink: return "sink";
    case ReasonCode::kDropout: return "dropout";
    case ReasonCode::kBackend: return "backend";
  }
  return "unknown";
}

std::string Reason::to_string() const {
  std::string text = std::string(attnmux::to_string(code)) + ": got " + got + ", want " + want;
  if (!hint.empty()) text += "; " + hint;
  return text;
}

}  // namespace attnmux
