#include "attnmux/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>

namespace attnmux {
namespace {

spdlog::logger& logger() {
  // Leaked: a StepContext or a plugin may log while static objects are being destroyed.
  static auto* instance = [] {
    auto sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
    auto* made = new spdlog::logger("attnmux", sink);
    made->set_pattern("%^%l:%$ %v");
    return made;
  }();
  return *instance;
}

spdlog::string_view_t view(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace

void set_log_level(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug: return logger().set_level(spdlog::level::debug);
    case LogLevel::kInfo: return logger().set_level(spdlog::level::info);
    case LogLevel::kWarning: return logger().set_level(spdlog::level::warn);
    case LogLevel::kError: return logger().set_level(spdlog::level::err);
    case LogLevel::kOff: return logger().set_level(spdlog::level::off);
  }
}

void log_debug(std::string_view text) { logger().log(spdlog::level::debug, view(text)); }
void log_info(std::string_view text) { logger().log(spdlog::level::info, view(text)); }
void log_warning(std::string_view text) { logger().log(spdlog::level::warn, view(text)); }
void log_error(std::string_view text) { logger().log(spdlog::level::err, view(text)); }

}  // namespace attnmux
