#include "conformance/memory_watch.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <unordered_map>

namespace attnmux::conformance {
namespace {

constexpr size_t kGuard = 256;  // on both sides; keeps the alignment of 64 that kernels count on
constexpr int kGuardByte = 0xa5;
constexpr int kPoison = 0xff;  // NaN in every floating type

std::atomic<int64_t> live_bytes{0}, most_bytes{0};

void count(int64_t bytes) {
  const int64_t now = live_bytes.fetch_add(bytes) + bytes;
  for (int64_t most = most_bytes.load(); now > most && !most_bytes.compare_exchange_weak(most, now);) {
  }
}

bool intact(const unsigned char* guard) {
  return std::all_of(guard, guard + kGuard, [](unsigned char byte) { return byte == kGuardByte; });
}

class GuardingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t size) override {
    if (size == 0) return {nullptr, c10::Device(c10::kCPU)};
    void* memory = nullptr;
    if (::posix_memalign(&memory, 64, size + 2 * kGuard) != 0) throw std::bad_alloc();
    auto* begin = static_cast<unsigned char*>(memory);
    std::memset(begin, kGuardByte, kGuard);
    std::memset(begin + kGuard, kPoison, size);
    std::memset(begin + kGuard + size, kGuardByte, kGuard);
    const std::lock_guard lock(mutex_);
    sizes_[begin + kGuard] = size;
    count(static_cast<int64_t>(size));
    return {begin + kGuard, begin + kGuard, &release, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t size) const override { default_copy_data(to, from, size); }

  std::string broken() {
    const std::lock_guard lock(mutex_);
    for (const auto& [data, size] : sizes_) examine(data, size);
    std::string text;
    text.swap(broken_);
    return text;
  }
  int64_t tensors() {
    const std::lock_guard lock(mutex_);
    return static_cast<int64_t>(sizes_.size());
  }

 private:
  static void release(void* data);

  void examine(unsigned char* data, size_t size) {
    const bool before = intact(data - kGuard), behind = intact(data + size);
    if (before && behind) return;
    if (broken_.empty()) {
      broken_ = "a buffer of " + std::to_string(size) + " bytes was written " +
                (before ? "behind its end" : "in front of its begin");
    }
    std::memset(data - kGuard, kGuardByte, kGuard);  // reported once
    std::memset(data + size, kGuardByte, kGuard);
  }

  std::mutex mutex_;
  std::unordered_map<unsigned char*, size_t> sizes_;
  std::string broken_;
};

GuardingAllocator& allocator() {
  static auto* instance = new GuardingAllocator;  // leaked: tensors of static objects are freed after it would be
  return *instance;
}

void GuardingAllocator::release(void* data) {
  auto* at = static_cast<unsigned char*>(data);
  const std::lock_guard lock(allocator().mutex_);
  const auto found = allocator().sizes_.find(at);
  allocator().examine(at, found->second);
  count(-static_cast<int64_t>(found->second));
  allocator().sizes_.erase(found);
  std::free(at - kGuard);
}

}  // namespace

void watch_memory() { c10::SetCPUAllocator(&allocator(), /*priority=*/UINT8_MAX); }

std::string broken_guards() { return allocator().broken(); }

MemoryUse memory_use() {
  const struct mallinfo2 info = ::mallinfo2();
  return {.tensors = allocator().tensors(),
          .bytes = live_bytes.load(),
          .heap = static_cast<int64_t>(info.uordblks + info.hblkhd)};
}

int64_t peak_bytes() { return most_bytes.load(); }
void reset_peak() { most_bytes = live_bytes.load(); }

}  // namespace attnmux::conformance

// The program's own operator new, which every library of the process uses. A sanitizer has one already.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
void* operator new(size_t size) {
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) throw std::bad_alloc();
  attnmux::conformance::count(static_cast<int64_t>(::malloc_usable_size(memory)));
  return memory;
}
void operator delete(void* memory) noexcept {
  if (memory == nullptr) return;
  attnmux::conformance::count(-static_cast<int64_t>(::malloc_usable_size(memory)));
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept { operator delete(memory); }
#endif
