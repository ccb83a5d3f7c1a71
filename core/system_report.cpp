#include "attnmux/system_report.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <dlfcn.h>
#include <torch/headeronly/version.h>
#include <unistd.h>

#include <thread>

namespace attnmux {
namespace {

std::string file_of(void* symbol) {
  Dl_info info{};
  return symbol && ::dladdr(symbol, &info) && info.dli_fname ? info.dli_fname : "";
}

// A library that is loaded already or can be, with its functions by name.
class Library {
 public:
  // Global where others link against its symbols. The handle is never closed: such libraries do not unload cleanly.
  explicit Library(const char* name, int mode = RTLD_LOCAL) : handle_(::dlopen(name, RTLD_NOW | mode)) {
    if (!handle_) {
      const char* text = ::dlerror();
      error_ = text ? text : "unknown reason";
    }
  }
  template <class Function>
  Function function(const char* name) const {
    return handle_ ? reinterpret_cast<Function>(::dlsym(handle_, name)) : nullptr;
  }
  explicit operator bool() const { return handle_ != nullptr; }
  const std::string& error() const { return error_; }

 private:
  void* handle_;
  std::string error_;
};

// CUDA writes 13.0 as 13000.
std::string cuda_version(int number) {
  return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

Finding cpu() {
  const int64_t pages = ::sysconf(_SC_PHYS_PAGES), page = ::sysconf(_SC_PAGESIZE);
  return {.name = "CPU",
          .found = true,
          .version = std::to_string(std::thread::hardware_concurrency()) + " cores, " + at::get_cpu_capability() +
                     ", " + std::to_string(at::get_num_threads()) + " threads used, " +
                     std::to_string(pages / 1024 * page / (1 << 20)) + " GiB memory",
          .purpose = "every command with --device cpu"};
}

Finding libtorch() {
  return {.name = "LibTorch",
          .found = true,
          .version = TORCH_VERSION,
          .where = file_of(reinterpret_cast<void*>(&at::get_num_threads)),
          .purpose = "everything"};
}

Finding libtorch_cuda() {
  const Library library("libtorch_cuda.so", RTLD_GLOBAL);
  Finding finding{.name = "LibTorch's CUDA part",
                  .found = static_cast<bool>(library),
                  .purpose = "--device cuda",
                  .remedy = "pip install torch==" TORCH_VERSION
                            " into the environment of LibTorch, with its "
                            "dependencies (" +
                            library.error() + ")"};
  if (library) {
    finding.version = TORCH_VERSION;
    finding.where = file_of(library.function<void*>("_ZN4c104cuda20getCurrentCUDAStreamEa"));
  }
  return finding;
}

Finding cuda_runtime() {
  const Library library("libcudart.so.13");
  Finding finding{.name = "CUDA runtime",
                  .purpose = "LibTorch itself, also on the CPU",
                  .remedy = "pip install nvidia-cuda-runtime==13.0.96"};
  int version = 0;
  const auto get = library.function<int (*)(int*)>("cudaRuntimeGetVersion");
  finding.found = get && get(&version) == 0;
  if (finding.found) {
    finding.version = cuda_version(version);
    finding.where = file_of(reinterpret_cast<void*>(get));
  }
  return finding;
}

Finding driver() {
  const Library library("libcuda.so.1");
  Finding finding{.name = "NVIDIA driver",
                  .purpose = "--device cuda",
                  .remedy = "install the NVIDIA driver (for CUDA 13.0 or later); without a GPU nothing is missing"};
  int version = 0;
  const auto get = library.function<int (*)(int*)>("cuDriverGetVersion");
  finding.found = get && get(&version) == 0;
  if (finding.found) {
    finding.version = "for CUDA up to " + cuda_version(version);
    finding.where = file_of(reinterpret_cast<void*>(get));
  }
  return finding;
}

Finding gpus() {
  Finding finding{.name = "GPUs",
                  .purpose = "--device cuda; the Hopper kernels want compute capability 9.0",
                  .remedy = "none is visible (CUDA_VISIBLE_DEVICES hides them, too); --device cpu runs everything"};
  const std::vector<Gpu> visible = visible_gpus();
  for (const Gpu& gpu : visible) {
    finding.version += (finding.version.empty() ? "" : ", ") + gpu.name + " (" + std::to_string(gpu.arch / 10) + "." +
                       std::to_string(gpu.arch % 10) + ")";
  }
  finding.found = !visible.empty();
  return finding;
}

Finding nccl() {
  // Found by its name alone once LibTorch's CUDA part, which needs it, is loaded.
  const Library library("libnccl.so.2");
  Finding finding{.name = "NCCL",
                  .purpose = "context parallelism over several GPUs (plugin cp_nccl)",
                  .remedy = "comes with LibTorch's CUDA part: pip install nvidia-nccl-cu13==2.28.9"};
  int version = 0;
  const auto get = library.function<int (*)(int*)>("ncclGetVersion");
  finding.found = get && get(&version) == 0;
  if (finding.found) {
    finding.version = std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
                      std::to_string(version % 100);
    finding.where = file_of(reinterpret_cast<void*>(get));
  }
  return finding;
}

Finding mpi() {
  Finding finding{.name = "MPI",
                  .purpose = "context parallelism over several processes on CPUs (plugin cp_mpi)",
                  .remedy = "apt-get install libopenmpi-dev openmpi-bin"};
  const Library library("libmpi.so.40");  // Open MPI 2 to 5
  char text[8192] = "";                   // MPI_MAX_LIBRARY_VERSION_STRING is 256 in Open MPI, 8192 in MPICH
  int length = 0;
  const auto get = library.function<int (*)(char*, int*)>("MPI_Get_library_version");  // allowed before MPI_Init
  finding.found = get && get(text, &length) == 0;
  if (finding.found) {
    finding.version = std::string(text).substr(0, std::string(text).find(','));
    finding.where = file_of(reinterpret_cast<void*>(get));
  }
  return finding;
}

}  // namespace

std::vector<Gpu> visible_gpus() {
  const Library library("libcuda.so.1");
  const auto init = library.function<int (*)(unsigned)>("cuInit");
  const auto count_of = library.function<int (*)(int*)>("cuDeviceGetCount");
  const auto name_of = library.function<int (*)(char*, int, int)>("cuDeviceGetName");
  const auto attribute_of = library.function<int (*)(int*, int, int)>("cuDeviceGetAttribute");
  std::vector<Gpu> gpus;
  int count = 0;
  if (!init || !count_of || !name_of || !attribute_of || init(0) != 0 || count_of(&count) != 0) return gpus;
  for (int device = 0; device < count; ++device) {
    char name[128] = "";
    int major = 0, minor = 0;  // attributes 75 and 76: compute capability
    name_of(name, sizeof name - 1, device);
    attribute_of(&major, 75, device);
    attribute_of(&minor, 76, device);
    gpus.push_back({.name = name, .arch = major * 10 + minor});
  }
  return gpus;
}

std::vector<Finding> examine_system() {
  // LibTorch's CUDA part first: it brings libraries that are then found by name.
  const Finding cuda_part = libtorch_cuda();
  return {cpu(), libtorch(), cuda_runtime(), cuda_part, driver(), gpus(), nccl(), mpi()};
}

}  // namespace attnmux
