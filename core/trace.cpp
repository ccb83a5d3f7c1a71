#include "attnmux/trace.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

namespace attnmux {

void Trace::add(Span span) {
  const std::lock_guard lock(mutex_);
  spans_.push_back(std::move(span));
}

std::vector<Trace::Span> Trace::spans() const {
  std::vector<Span> spans;
  {
    const std::lock_guard lock(mutex_);
    spans = spans_;
  }
  std::stable_sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) { return a.begin < b.begin; });
  return spans;
}

std::string Trace::to_json() const {
  const std::vector<Span> all = spans();
  const auto microseconds = [](auto duration) { return std::chrono::duration<double, std::micro>(duration).count(); };
  nlohmann::ordered_json events = nlohmann::ordered_json::array();
  const auto name = [&](const char* kind, int32_t rank, size_t lane, const std::string& text) {
    events.push_back({{"ph", "M"}, {"name", kind}, {"pid", rank}, {"tid", lane}, {"args", {{"name", text}}}});
  };
  std::map<int32_t, std::map<std::string, size_t>> lanes;  // by rank; numbered as they come
  for (const Span& span : all) {
    auto& of_rank = lanes[span.rank];
    if (of_rank.empty()) name("process_name", span.rank, 0, "rank " + std::to_string(span.rank));
    const auto [lane, is_new] = of_rank.try_emplace(span.lane, of_rank.size());
    if (is_new) name("thread_name", span.rank, lane->second, span.lane);
    events.push_back({{"ph", "X"},
                      {"name", span.name},
                      {"cat", span.lane},
                      {"pid", span.rank},
                      {"tid", lane->second},
                      {"ts", microseconds(span.begin - all.front().begin)},
                      {"dur", microseconds(span.end - span.begin)}});
  }
  return nlohmann::ordered_json{{"displayTimeUnit", "ms"}, {"traceEvents", std::move(events)}}.dump();
}

Trace::Scope::Scope(Trace* trace, int32_t rank, std::string lane, std::string name) : trace_(trace) {
  if (trace_) span_ = {rank, std::move(lane), std::move(name), std::chrono::steady_clock::now(), {}};
}

Trace::Scope::~Scope() {
  if (!trace_) return;
  span_.end = std::chrono::steady_clock::now();
  trace_->add(std::move(span_));
}

}  // namespace attnmux
