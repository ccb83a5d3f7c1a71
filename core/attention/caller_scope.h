// Names the caller of a backend for as long as the call runs, see launch_mark.h.
#pragma once

#include <cstdint>
#include <string>

namespace attnmux {

class CallerScope {
 public:
  explicit CallerScope(const std::string& name);  // "model.layers.3.self_attn, forward"
  ~CallerScope();
  CallerScope(const CallerScope&) = delete;
  CallerScope& operator=(const CallerScope&) = delete;

 private:
  uint32_t outer_;
};

}  // namespace attnmux
