// Which attention call a GPU had begun last: a fault shows at some later call, or in none, and should still name the
// module that launched it.
//
//   watch_launches(device_index, begun);      // a backend, once for each GPU: memory that kernels write, hosts read
//   params.begun = begun, params.caller = current_caller();  // each call; a kernel's first block stores caller there
//
//   throw Error(ErrorCode::kDeviceError, text + fault_origin());                             // whoever meets a fault
//
// A captured graph stores the caller that it was captured with, which is the module all the same. A backend that marks
// nothing works; its faults are reported without an origin. Any thread.
#pragma once

#include <cstdint>
#include <string>

#include "attnmux/export.h"

namespace attnmux {

// The call of a backend's forward() or backward() that runs on this thread, a number for each module and direction; 0
// outside of such calls.
ATTNMUX_API uint32_t current_caller() noexcept;

// `begun` is read when a fault is reported, until the process ends; a GPU may have several.
ATTNMUX_API void watch_launches(int32_t device_index, const volatile uint32_t* begun);

// "; the last attention call that GPU 0 had begun is model.layers.3.self_attn, forward: ...", or what to do to learn of
// it where no backend has marked a call.
ATTNMUX_API std::string fault_origin();

}  // namespace attnmux
