// What a run will ask of every attention module, known before any weight or tensor exists.
//
//   std::vector<AttentionModule> modules = attention_modules(config, {.masks = {MaskFamily::kVarlenCausal},
//                                                                     .max_tokens = 1024, .training = true});
//
// The model adds what its config.json fixes: heads and head_dim. Plain data.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "attnmux/mask_family.h"
#include "attnmux/request.h"

namespace attnmux {

struct AttentionUse {
  MaskFamilySet masks;      // every family that a step may be armed with
  bool empty_rows = false;  // a mask may leave a query without keys
  DType dtype = DType::kFloat32;
  DeviceKind device = DeviceKind::kCpu;
  int64_t max_tokens = 0;  // longest packed sequence; 0: unknown
  bool training = false;   // backward will be called
  int64_t cp_size = 1;     // ranks that share a sequence
};

}  // namespace attnmux
