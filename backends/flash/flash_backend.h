// "flash": ATen's fused CPU kernel without a mask matrix: full, causal, and packed documents of either kind.
//
// One kernel call a document; memory is linear in length. ATen aligns its causal mask top-left, so a causal document
// with more keys than queries takes two calls, merged by lse.
#pragma once

#include <memory>

#include "attnmux/backend.h"

namespace attnmux {

std::shared_ptr<const AttentionBackend> make_flash_backend();

}  // namespace attnmux
