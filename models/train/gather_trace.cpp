#include "models/train/gather_trace.h"

#include <ATen/ATen.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace attnmux {
namespace {

using std::chrono::nanoseconds;

// A steady clock counts from when its host was started; the system clock is the same for all.
nanoseconds steady_to_system() {
  const auto system = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<nanoseconds>(system) - Trace::TimePoint::clock::now().time_since_epoch();
}

at::Tensor to_bytes(const std::vector<Trace::Span>& spans) {
  const nanoseconds offset = steady_to_system();
  nlohmann::json list = nlohmann::json::array();
  for (const Trace::Span& span : spans) {
    const auto time = [&](Trace::TimePoint point) { return nanoseconds(point.time_since_epoch() + offset).count(); };
    list.push_back({span.rank, span.lane, span.name, time(span.begin), time(span.end)});
  }
  const std::vector<uint8_t> bytes = nlohmann::json::to_cbor(list);
  const at::Tensor tensor = at::empty({static_cast<int64_t>(bytes.size())}, at::kByte);
  std::memcpy(tensor.mutable_data_ptr(), bytes.data(), bytes.size());
  return tensor;
}

void add_spans(const at::Tensor& bytes, Trace& trace) {
  const nanoseconds offset = steady_to_system();
  const auto* first = bytes.const_data_ptr<uint8_t>();
  for (const nlohmann::json& span : nlohmann::json::from_cbor(first, first + bytes.numel())) {
    const auto time = [&](size_t field) { return Trace::TimePoint(nanoseconds(span[field].get<int64_t>()) - offset); };
    trace.add({span[0].get<int32_t>(), span[1].get<std::string>(), span[2].get<std::string>(), time(3), time(4)});
  }
}

}  // namespace

void gather_trace(Trace& trace, CpGroup& world) {
  const at::Tensor mine = to_bytes(trace.spans());
  const at::Tensor sizes = at::empty({world.size(), 1}, at::kLong);
  world.all_gather(at::tensor({mine.numel()}, at::kLong), sizes)->wait();

  std::vector<at::Tensor> send(world.size()), receive(world.size());
  if (world.rank() != 0) send[0] = mine;
  for (int32_t rank = 1; world.rank() == 0 && rank < world.size(); ++rank) {
    receive[rank] = at::empty({sizes[rank][0].item<int64_t>()}, at::kByte);
  }
  world.exchange(send, receive)->wait();
  for (int32_t rank = 1; world.rank() == 0 && rank < world.size(); ++rank) add_spans(receive[rank], trace);
}

}  // namespace attnmux
