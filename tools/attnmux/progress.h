// Progress of something that takes long: a bar with the time left on a terminal, plain lines on a pipe.
#pragma once

#include <chrono>
#include <cstdint>
#include <iosfwd>
#include <string>

namespace attnmux::tool {

// Writes from one thread: beside an answer on stdout to stderr.
class Progress {
 public:
  enum class To : uint8_t { kStdout, kStderr };
  explicit Progress(int64_t total, To to = To::kStdout);
  ~Progress();  // leaves the terminal on a line of its own

  // `text` says what there is to say about it. The speed is that since the first update, which therefore tells none:
  // what came before it (reading weights, steps of an earlier run) does not count.
  void update(int64_t done, const std::string& text);

 private:
  int64_t total_;
  std::ostream& out_;
  int file_descriptor_;
  bool terminal_;
  bool drawn_ = false;
  int64_t first_done_ = -1;
  std::chrono::steady_clock::time_point first_time_;
};

// 75 s is "1m15s".
std::string duration(double seconds);

}  // namespace attnmux::tool
