// What happened when, on which rank: spans of time as a Chrome trace, which chrome://tracing and ui.perfetto.dev draw.
//
//   Trace trace;
//   { const Trace::Scope scope(&trace, rank, "compute", "stage 1"); ... }      // records nothing for a null trace
//   write_file_atomically("trace.json", trace.to_json());
//
// Ranks are the picture's processes, lanes their threads. Thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "attnmux/export.h"

namespace attnmux {

class ATTNMUX_API Trace {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  struct Span {
    int32_t rank = 0;
    std::string lane;  // "compute", "exchange"
    std::string name;
    TimePoint begin, end;
  };

  void add(Span span);
  // By time of their begin.
  std::vector<Span> spans() const;
  // {"traceEvents": [...]}, times in microseconds since the first span.
  std::string to_json() const;

  // The time that it lives.
  class ATTNMUX_API Scope {
   public:
    Scope(Trace* trace, int32_t rank, std::string lane, std::string name);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Trace* trace_;
    Span span_;
  };

 private:
  mutable std::mutex mutex_;
  std::vector<Span> spans_;
};

}  // namespace attnmux
