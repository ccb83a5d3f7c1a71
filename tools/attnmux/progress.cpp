#include "tools/attnmux/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <iostream>

namespace attnmux::tool {
namespace {

constexpr int64_t kBarWidth = 24;

size_t terminal_columns(int file_descriptor) {
  winsize size{};
  return ::ioctl(file_descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace

Progress::Progress(int64_t total, To to)
    : total_(total),
      out_(to == To::kStdout ? std::cout : std::cerr),
      file_descriptor_(to == To::kStdout ? STDOUT_FILENO : STDERR_FILENO),
      terminal_(::isatty(file_descriptor_) == 1) {}

Progress::~Progress() {
  if (drawn_) out_ << std::endl;
}

void Progress::update(int64_t done, const std::string& text) {
  const auto now = std::chrono::steady_clock::now();
  std::string left;
  if (first_done_ < 0) {
    first_done_ = done;
    first_time_ = now;
  } else if (done > first_done_ && done < total_) {
    const double seconds = std::chrono::duration<double>(now - first_time_).count();
    left = duration(seconds / static_cast<double>(done - first_done_) * static_cast<double>(total_ - done)) + " left";
  }
  const std::string count = std::to_string(done) + "/" + std::to_string(total_);
  if (!terminal_) {
    out_ << count << "  " << text << (left.empty() ? "" : "  ") << left << std::endl;
    return;
  }
  const int64_t filled = kBarWidth * done / std::max<int64_t>(1, total_);
  std::string line = "[";
  line.append(filled, '#').append(kBarWidth - filled, '.').append("] ");
  line += count + "  " + (left.empty() ? "" : left + "  ") + text;
  // One column less than the terminal has: a full line would wrap, and the next \r would not reach its start.
  line.resize(std::min(line.size(), terminal_columns(file_descriptor_) - 1));
  out_ << "\r\033[K" << line << std::flush;
  drawn_ = true;
}

std::string duration(double seconds) {
  const auto whole = static_cast<int64_t>(std::llround(std::max(0.0, seconds)));
  if (whole < 60) return std::to_string(whole) + "s";
  const auto two_digits = [](int64_t value) { return std::string{char('0' + value / 10), char('0' + value % 10)}; };
  if (whole < 3600) return std::to_string(whole / 60) + "m" + two_digits(whole % 60) + "s";
  return std::to_string(whole / 3600) + "h" + two_digits(whole % 3600 / 60) + "m";
}

}  // namespace attnmux::tool
