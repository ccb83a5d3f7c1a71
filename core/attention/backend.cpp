#include "attnmux/backend.h"

namespace attnmux {

// Key functions: one vtable and one typeinfo, in the core library, whatever plugin derives from these.
Prepared::~Prepared() = default;
AttentionBackend::~AttentionBackend() = default;

}  // namespace attnmux
