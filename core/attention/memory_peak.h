// How much memory a piece of work took at its peak, beyond what was held before.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <optional>

namespace attnmux {

// Runs `work` once. On a GPU the caching allocator's figures; on the CPU the resident set of the whole process, which
// the kernel tells by page; nothing where it does not.
std::optional<int64_t> peak_extra_bytes(const at::Device& device, const std::function<void()>& work);

}  // namespace attnmux
