#include "attnmux/device.h"

#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <dlfcn.h>

#include <charconv>
#include <optional>

#include "attnmux/error.h"
#include "attnmux/spelling.h"

namespace attnmux {
namespace {

// "cuda" is 0; nothing where the text is no device.
std::optional<int> cuda_index(const std::string& name) {
  if (name == "cuda") return 0;
  if (!name.starts_with("cuda:")) return std::nullopt;
  int index = -1;
  const auto [end, error] = std::from_chars(name.data() + 5, name.data() + name.size(), index);
  if (error != std::errc() || end != name.data() + name.size() || index < 0 || index > 127) return std::nullopt;
  return index;
}

void load_cuda_part(const std::string& name) {
  // Global: LibTorch registers its CUDA operators and hooks with the CPU part, which plugins and this library share.
  // Before the first question about CUDA: LibTorch keeps the answer "there is none".
  static const std::string failure = [] {
    if (::dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL)) return std::string();
    const char* text = ::dlerror();
    return std::string(text ? text : "unknown reason");
  }();
  if (!failure.empty()) {
    throw Error(ErrorCode::kDeviceError, "device \"" + name + "\": LibTorch's CUDA part cannot be loaded: " + failure +
                                             "; `attnmux doctor` tells what is missing");
  }
}

}  // namespace

at::Device open_device(const std::string& name) {
  if (name == "cpu") return at::Device(at::kCPU);
  const std::optional<int> index = cuda_index(name);
  if (!index) throw Error(ErrorCode::kUsage, unknown_word("device", name, {"cpu", "cuda", "cuda:1"}));
  load_cuda_part(name);
  const int count = at::globalContext().hasCUDA() ? at::detail::getCUDAHooks().deviceCount() : 0;
  if (*index >= count) {
    throw Error(ErrorCode::kDeviceError, "device \"" + name + "\": this machine has " + std::to_string(count) +
                                             " usable GPUs; `attnmux doctor` tells more");
  }
  at::globalContext().lazyInitDevice(at::kCUDA);
  return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(*index));
}

int32_t device_arch(const at::Device& device) {
  if (!device.is_cuda()) return 0;
  // By name, from the runtime that LibTorch has loaded: the core is built without CUDA's headers.
  using GetAttribute = int (*)(int* value, int attribute, int device);
  constexpr int kMajor = 75, kMinor = 76;  // cudaDevAttrComputeCapabilityMajor, -Minor
  static const auto get = [] {
    void* runtime = ::dlopen("libcudart.so.13", RTLD_NOW | RTLD_NOLOAD);
    return runtime ? reinterpret_cast<GetAttribute>(::dlsym(runtime, "cudaDeviceGetAttribute")) : nullptr;
  }();
  int major = 0, minor = 0;
  if (!get || get(&major, kMajor, device.index()) != 0 || get(&minor, kMinor, device.index()) != 0) {
    throw Error(ErrorCode::kDeviceError, "the compute capability of " + device.str() + " cannot be read");
  }
  return major * 10 + minor;
}

void synchronize(const at::Device& device) {
  if (device.is_cuda()) at::detail::getCUDAHooks().deviceSynchronize(device.index());
}

}  // namespace attnmux
