#include "common/dense_mask.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <string>

#include "attnmux/error.h"

namespace attnmux {

at::Tensor dense_mask(const AttnMaskSpec& mask, std::string_view backend) {
  if (mask.total_q() > kMaxDenseTokens || mask.total_k() > kMaxDenseTokens) {
    throw Error(ErrorCode::kOutOfEnvelope,
                std::string(backend) + ": a mask of " + std::to_string(mask.total_q()) + " queries and " +
                    std::to_string(mask.total_k()) + " keys; this backend builds it dense and takes at most " +
                    std::to_string(kMaxDenseTokens) +
                    " of each. Shorten the sequences or choose a backend with linear memory.");
  }
  at::Tensor dense = at::zeros({mask.total_q(), mask.total_k()}, at::kBool);
  bool* row = dense.data_ptr<bool>();
  for (int64_t q = 0; q < mask.total_q(); ++q, row += mask.total_k()) {
    for (const Range& keys : mask.keys_of_row(q)) std::fill(row + keys.begin, row + keys.end, true);
  }
  return dense;
}

at::Tensor empty_rows(const AttnMaskSpec& mask) {
  at::Tensor empty = at::zeros({mask.total_q()}, at::kBool);
  bool* row = empty.data_ptr<bool>();
  for (int64_t q = 0; q < mask.total_q(); ++q) row[q] = mask.keys_of_row(q).empty();
  return empty;
}

at::Device device_of(const AttentionShape& shape) {
  if (shape.device == DeviceKind::kCpu) return at::kCPU;
  return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(shape.device_index));
}

}  // namespace attnmux
