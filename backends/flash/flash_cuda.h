// "flash" on CUDA: FlashAttention-2 as ATen carries it, with cu_seqlens: documents that are full, causal or a window.
//
// One launch for all documents, memory linear in length. Its causal masks and windows are aligned bottom-right, as this
// project's are; keys and values are not repeated for the query heads of a group.
#pragma once

#include <memory>

#include "attnmux/backend.h"

namespace attnmux {

// Loads and answers query() on a machine without a GPU, too.
std::shared_ptr<const AttentionBackend> make_flash_cuda_backend();

}  // namespace attnmux
