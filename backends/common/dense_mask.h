// The mask as tensors: a dense boolean matrix, for backends whose memory is quadratic anyway, and its empty rows.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>

#include "attnmux/backend.h"
#include "attnmux/mask.h"

namespace attnmux {

// Longest side that is made dense: 256 MiB of mask, and scores of a few GiB in the backend.
inline constexpr int64_t kMaxDenseTokens = 16384;

// [total_q, total_k] bool on the CPU, true = attended. Throws Error(kOutOfEnvelope) beyond kMaxDenseTokens, naming
// `backend`.
at::Tensor dense_mask(const AttnMaskSpec& mask, std::string_view backend);

// [total_q] bool on the CPU, true = attends no key. Any length.
at::Tensor empty_rows(const AttnMaskSpec& mask);

// Where the tensors of calls of this shape live.
at::Device device_of(const AttentionShape& shape);

}  // namespace attnmux
