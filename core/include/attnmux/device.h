// Where tensors live: "cpu", "cuda" or "cuda:1", named by users.
//
//   at::Device device = open_device("cuda");       // loads LibTorch's CUDA part on first use
//   int32_t arch = device_arch(device);            // 90
//
// The core links LibTorch's CPU part alone, so that a machine without the CUDA libraries runs everything else; the CUDA
// part is loaded when a GPU is asked for. Any thread.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>

#include "attnmux/export.h"
#include "attnmux/request.h"

namespace attnmux {

// Throws Error(kUsage) for another name, Error(kDeviceError) that says what is missing where the device cannot be used.
ATTNMUX_API at::Device open_device(const std::string& name);

// Major times ten plus minor of a GPU's compute capability; 0 for the CPU. REQUIRES: open_device() returned it.
ATTNMUX_API int32_t device_arch(const at::Device& device);

// Waits for the work queued on it. REQUIRES: open_device() returned it.
ATTNMUX_API void synchronize(const at::Device& device);

}  // namespace attnmux
