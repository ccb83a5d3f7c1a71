#include "attnmux/launch_mark.h"

#include <deque>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "caller_scope.h"

namespace attnmux {
namespace {

thread_local uint32_t caller = 0;

struct Marks {
  std::mutex mutex;
  std::deque<std::string> names;  // of callers 1, 2, ...
  std::unordered_map<std::string, uint32_t> callers;
  std::vector<std::pair<int32_t, const volatile uint32_t*>> watched;
};

// One for the process, as its GPUs are; it decides nothing and lives as long as a fault may be reported.
Marks& marks() {
  static Marks& all = *new Marks;
  return all;
}

}  // namespace

CallerScope::CallerScope(const std::string& name) : outer_(caller) {
  Marks& all = marks();
  const std::lock_guard lock(all.mutex);
  const auto [at, added] = all.callers.try_emplace(name, static_cast<uint32_t>(all.names.size() + 1));
  if (added) all.names.push_back(name);
  caller = at->second;
}

CallerScope::~CallerScope() { caller = outer_; }

uint32_t current_caller() noexcept { return caller; }

void watch_launches(int32_t device_index, const volatile uint32_t* begun) {
  Marks& all = marks();
  const std::lock_guard lock(all.mutex);
  all.watched.emplace_back(device_index, begun);
}

std::string fault_origin() {
  Marks& all = marks();
  const std::lock_guard lock(all.mutex);
  std::string text;
  for (const auto& [device, begun] : all.watched) {
    const uint32_t last = *begun;
    if (last == 0 || last > all.names.size()) continue;
    text += "; the last attention call that GPU " + std::to_string(device) + " had begun is " + all.names[last - 1] +
            ": the fault is of its kernels, or of what was launched behind it and before the next attention call";
  }
  if (!text.empty()) return text;
  return "; run once more with CUDA_LAUNCH_BLOCKING=1 to have the module that launched it named here";
}

}  // namespace attnmux
