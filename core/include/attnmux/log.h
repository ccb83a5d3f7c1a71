// Log lines on stderr, so that stdout stays the program's answer.
//
//   log_info("loaded plugin magi from lib/attnmux/plugins/magi.so");
//
// A thin door to spdlog: its fmt and LibTorch's must not meet in one translation unit. Any thread.
#pragma once

#include <string_view>

#include "attnmux/export.h"

namespace attnmux {

enum class LogLevel { kDebug, kInfo, kWarning, kError, kOff };

// Lines below `level` are dropped. The initial level is kInfo.
ATTNMUX_API void set_log_level(LogLevel level);

ATTNMUX_API void log_debug(std::string_view text);
ATTNMUX_API void log_info(std::string_view text);
ATTNMUX_API void log_warning(std::string_view text);
ATTNMUX_API void log_error(std::string_view text);

}  // namespace attnmux
