// How much memory calls take and what they leave behind.
#include <ATen/ATen.h>
#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>

#include "conformance/families.h"
#include "conformance/memory_watch.h"

namespace attnmux::conformance {
namespace {

constexpr auto kAggregate = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);

int64_t used(const at::Device& device) {
  if (!device.is_cuda()) return memory_use().bytes;
  return c10::getDeviceAllocator(device.type())->getDeviceStats(device.index()).allocated_bytes[kAggregate].current;
}

void restart_peak(const at::Device& device) {
  if (device.is_cuda()) c10::getDeviceAllocator(device.type())->resetPeakStats(device.index());
  reset_peak();
}

int64_t peak(const at::Device& device) {
  if (!device.is_cuda()) return peak_bytes();
  return c10::getDeviceAllocator(device.type())->getDeviceStats(device.index()).allocated_bytes[kAggregate].peak;
}

// The bare calls: the suite's own checks would take memory, too.
void call(const Subject& subject, const Setup& setup, const Inputs& in) {
  const auto prepared = subject.backend->prepare(setup.mask.spec, shape_of(setup.c, subject.device));
  const ForwardResult out =
      subject.backend->forward(*prepared, {.q = in.q, .k = in.k, .v = in.v, .softmax_scale = in.softmax_scale});
  if (!is_training(setup.c)) return;
  subject.backend->backward(*prepared, {.dout = in.dout,
                                        .q = in.q,
                                        .k = in.k,
                                        .v = in.v,
                                        .out = out.out,
                                        .lse = out.lse,
                                        .softmax_scale = in.softmax_scale});
}

std::string with_unit(double bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  size_t unit = 0;
  while (bytes >= 1024 && unit < 5) bytes /= 1024, ++unit;
  return std::to_string(static_cast<int64_t>(bytes)) + " " + units[unit];
}

// The longest sequence that query() takes, of powers of two up to 2^20.
int64_t longest_claimed(const Subject& subject, const Setup& setup) {
  AttentionRequest request = request_of(setup, subject.device);
  int64_t longest = 0;
  for (request.max_tokens = 1024; request.max_tokens <= 1 << 20; request.max_tokens *= 2) {
    if (subject.backend->query(request).ok()) longest = request.max_tokens;
  }
  return longest;
}

// Bytes at S, 2 S and 4 S tell the quadratic part apart. It is allowed where query() refuses the lengths for which it
// would take more than any machine has.
void growth(const Subject& subject, const Case& c, CaseResult& result) {
  constexpr double kAllowed = 64.0 * (1 << 30);
  double bytes[3];
  for (const int i : {0, 1, 2}) {
    Case at = c;
    at.sq = at.sk = c.sq << i;
    const Setup setup(at);
    const Inputs in = on_device(setup.in, subject.device);
    call(subject, setup, in);  // what is set up once is not counted
    restart_peak(subject.device);
    const int64_t before = used(subject.device);
    call(subject, setup, in);
    bytes[i] = static_cast<double>(peak(subject.device) - before);
  }
  const double size = static_cast<double>(c.sq);
  const double square = std::max(0.0, (bytes[2] - bytes[1] - 2 * (bytes[1] - bytes[0])) / (6 * size * size));
  const auto longest = static_cast<double>(longest_claimed(subject, Setup(c)));
  const double expected = square * longest * longest;
  if (expected > kAllowed) {
    result.fail(Check::kMemoryGrowth,
                "memory beside the results grows with the square of the length (" + with_unit(bytes[0]) + ", " +
                    with_unit(bytes[1]) + ", " + with_unit(bytes[2]) + " at " + std::to_string(c.sq) + ", " +
                    std::to_string(2 * c.sq) + ", " + std::to_string(4 * c.sq) + " tokens); query() takes " +
                    std::to_string(static_cast<int64_t>(longest)) + " tokens, for which that would be " +
                    with_unit(expected) + ". Refuse such lengths (code length) or take less");
  }
}

void leak(const Subject& subject, const Case& c, CaseResult& result) {
  constexpr int kWarm = 10, kCalls = 50;
  constexpr int64_t kAllowedHeap = 64 << 10;  // of an allocator's own books
  const Setup setup(c);
  const Inputs in = on_device(setup.in, subject.device);
  for (int i = 0; i < kWarm; ++i) call(subject, setup, in);
  const MemoryUse before = memory_use();
  const int64_t device_before = used(subject.device);
  for (int i = 0; i < kCalls; ++i) call(subject, setup, in);
  const MemoryUse after = memory_use();
  const int64_t tensors = after.tensors - before.tensors, heap = after.heap - before.heap;
  const int64_t device = subject.device.is_cuda() ? used(subject.device) - device_before : 0;
  if (tensors > 0 || heap > kAllowedHeap || device > 0) {
    result.fail(Check::kMemoryLeak, std::to_string(kCalls) + " calls left behind " + std::to_string(tensors) +
                                        " tensors, " + with_unit(static_cast<double>(std::max<int64_t>(0, heap))) +
                                        " of the heap and " + with_unit(static_cast<double>(device)) +
                                        " of the device's memory");
  }
}

}  // namespace

void run_memory(const Subject& subject, const Case& c, CaseResult& result) {
  const bool grows = c.check == "growth" || c.check == "grad-growth";
  if (!takes(subject, Setup(c), result)) return;
  try {
    grows ? growth(subject, c, result) : leak(subject, c, result);
  } catch (const std::exception& error) {
    result.fail(Check::kRefusedAfterYes, std::string("query() took the request, the call threw: ") + error.what());
  }
  if (const std::string broken = broken_guards(); !broken.empty()) result.fail(Check::kGuard, broken);
}

}  // namespace attnmux::conformance
