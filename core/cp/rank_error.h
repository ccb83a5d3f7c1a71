// How a failed rank's error reads, whether the rank is a thread or a process.
#pragma once

#include <cstdint>
#include <exception>

#include "attnmux/error.h"

namespace attnmux {

// Whatever was thrown; LibTorch's errors without their backtrace.
Error as_error(const std::exception_ptr& thrown);

// "rank 2 of 4: " in front.
Error of_rank(int32_t rank, int32_t size, const Error& error);

}  // namespace attnmux
