#include "models/train/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "attnmux/error.h"
#include "models/io/atomic_file.h"

namespace attnmux {
namespace {

[[noreturn]] void io_error(const std::string& path, const std::string& what) {
  throw Error(ErrorCode::kIo, path + ": " + what + ": " + std::strerror(errno));
}

// Whole lines of the file that hold steps up to `last_step`.
std::string kept_lines(const std::string& path, int64_t last_step) {
  const std::string contents = read_whole_file(path);
  std::string kept;
  for (size_t begin = 0; begin < contents.size();) {
    const size_t end = contents.find('\n', begin);
    if (end == std::string::npos) break;  // the process died in the middle of this line
    const std::string line = contents.substr(begin, end - begin);
    begin = end + 1;
    if (metrics_from_json(line).step <= last_step) kept += line + "\n";
  }
  return kept;
}

}  // namespace

std::string to_json(const StepMetrics& metrics) {
  nlohmann::ordered_json object;
  object["step"] = metrics.step;
  if (metrics.step > 0) {
    object["loss"] = metrics.loss;
    object["tokens"] = metrics.tokens;
    object["tokens_per_s"] = metrics.tokens_per_s;
    object["grad_norm"] = metrics.grad_norm;
    object["lr"] = metrics.lr;
    object["peak_bytes"] = metrics.peak_bytes;
    object["balance"] = metrics.balance;
    object["backends"] = metrics.backends;
  }
  if (metrics.heldout_loss) object["heldout_loss"] = *metrics.heldout_loss;
  return object.dump();
}

StepMetrics metrics_from_json(const std::string& line) {
  try {
    const auto object = nlohmann::json::parse(line);
    StepMetrics metrics;
    object.at("step").get_to(metrics.step);
    if (metrics.step > 0) {
      object.at("loss").get_to(metrics.loss);
      object.at("tokens").get_to(metrics.tokens);
      object.at("tokens_per_s").get_to(metrics.tokens_per_s);
      object.at("grad_norm").get_to(metrics.grad_norm);
      object.at("lr").get_to(metrics.lr);
      object.at("peak_bytes").get_to(metrics.peak_bytes);
      object.at("balance").get_to(metrics.balance);
      object.at("backends").get_to(metrics.backends);
    }
    if (object.contains("heldout_loss")) metrics.heldout_loss = object.at("heldout_loss").get<double>();
    return metrics;
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorCode::kBadFile, "not a line of metrics.jsonl: " + line + ": " + error.what());
  }
}

std::vector<StepMetrics> read_metrics(const std::string& path) {
  std::ifstream file(path);
  if (!file) io_error(path, "cannot be read");
  std::vector<StepMetrics> metrics;
  for (std::string line; std::getline(file, line);) metrics.push_back(metrics_from_json(line));
  return metrics;
}

MetricsLog MetricsLog::open(const std::string& path, int64_t last_step) {
  const bool exists = std::filesystem::exists(path);
  write_file_atomically(path, exists ? kept_lines(path, last_step) : "");
  const int fd = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (fd < 0) io_error(path, "cannot be opened");
  return {path, fd};
}

MetricsLog::MetricsLog(MetricsLog&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}

MetricsLog::~MetricsLog() {
  if (fd_ >= 0) ::close(fd_);
}

void MetricsLog::append(const StepMetrics& metrics) {
  const std::string line = to_json(metrics) + "\n";
  const ssize_t written = ::write(fd_, line.data(), line.size());
  if (written < 0) io_error(path_, "cannot be written");
  if (static_cast<size_t>(written) != line.size()) {
    errno = ENOSPC;
    io_error(path_, "cannot be written whole");
  }
}

void MetricsLog::sync() {
  if (::fsync(fd_) != 0) io_error(path_, "cannot be synced");
}

int64_t peak_resident_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6)) * 1024;
  }
  return 0;
}

}  // namespace attnmux
