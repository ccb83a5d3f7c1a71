// CUDA runtime errors as Error(kDeviceError), and what launches ask of the current device.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "attnmux/error.h"

namespace attnmux::ffa_sm90 {

inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    throw Error(ErrorCode::kDeviceError, std::string(what) + ": " + cudaGetErrorString(error));
  }
}

// Makes the current device's context that of this thread. Calls of the runtime do so by themselves, the driver's
// functions (tensor maps) find it or fail: an autograd thread's first call to CUDA may be ours.
inline void bind_context() {
  int device = 0;
  check(cudaGetDevice(&device), "asking for the current device");
  check(cudaSetDevice(device), "binding the device to this thread");
}

inline int multiprocessors() {
  int device = 0, count = 0;
  check(cudaGetDevice(&device), "asking for the current device");
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
        "asking for the number of multiprocessors");
  return count;
}

}  // namespace attnmux::ffa_sm90
