// What a step has done, and the file that keeps it: metrics.jsonl, one JSON object a line.
//
//   MetricsLog log = MetricsLog::open("runs/a/metrics.jsonl", /*last_step=*/0);
//   log.append(metrics);
//
// A line is written whole or, if the process dies, cut; open() drops cut lines and those beyond the step to go on from.
// One thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace attnmux {

struct StepMetrics {
  int64_t step = 0;  // from 1; 0 is the state before training and has no more than a held-out loss
  double loss = 0;   // mean over the step's valid labels, nats
  int64_t tokens = 0;
  double tokens_per_s = 0;
  double grad_norm = 0;  // before clipping
  double lr = 0;
  int64_t peak_bytes = 0;                   // the process's largest resident size so far
  double balance = 1;                       // largest over mean attended area of the ranks
  std::map<std::string, int64_t> backends;  // attention modules that ran on each backend
  std::optional<double> heldout_loss;
};

std::string to_json(const StepMetrics& metrics);         // one line without its end
StepMetrics metrics_from_json(const std::string& line);  // Error(kBadFile) for anything else
std::vector<StepMetrics> read_metrics(const std::string& path);

class MetricsLog {
 public:
  // Keeps the lines of steps up to `last_step` and goes on behind them. Throws Error(kIo).
  static MetricsLog open(const std::string& path, int64_t last_step);
  ~MetricsLog();
  MetricsLog(MetricsLog&& other) noexcept;
  MetricsLog& operator=(MetricsLog&&) = delete;

  void append(const StepMetrics& metrics);
  void sync();  // to the disk itself, before a checkpoint claims these steps

 private:
  MetricsLog(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  std::string path_;
  int fd_;
};

// Largest resident size of this process so far, in bytes (VmHWM).
int64_t peak_resident_bytes();

}  // namespace attnmux
