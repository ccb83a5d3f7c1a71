#include "memory_peak.h"

#include <c10/core/CachingDeviceAllocator.h>
#include <malloc.h>

#include <fstream>
#include <string>

#include "attnmux/device.h"

namespace attnmux {
namespace {

// A line of /proc/self/status, e.g. "VmHWM:  123 kB", in bytes.
std::optional<int64_t> status_bytes(const std::string& key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(key + ":")) return std::stoll(line.substr(key.size() + 1)) * 1024;
  }
  return std::nullopt;
}

bool reset_peak() {
  std::ofstream file("/proc/self/clear_refs");
  file << "5" << std::flush;  // proc(5): resets the peak resident set size
  return file.good();
}

}  // namespace

std::optional<int64_t> peak_extra_bytes(const at::Device& device, const std::function<void()>& work) {
  if (device.is_cuda()) {
    constexpr auto kAggregate = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    c10::DeviceAllocator* allocator = c10::getDeviceAllocator(device.type());
    synchronize(device);
    allocator->resetPeakStats(device.index());
    const int64_t before = allocator->getDeviceStats(device.index()).allocated_bytes[kAggregate].current;
    work();
    synchronize(device);
    return allocator->getDeviceStats(device.index()).allocated_bytes[kAggregate].peak - before;
  }
  // Freed blocks that malloc keeps would be used again unseen.
  ::malloc_trim(0);
  const bool reset = reset_peak();
  const std::optional<int64_t> before = status_bytes("VmRSS");
  work();
  const std::optional<int64_t> peak = status_bytes("VmHWM");
  if (!reset || !before || !peak) return std::nullopt;
  return std::max<int64_t>(0, *peak - *before);
}

}  // namespace attnmux
