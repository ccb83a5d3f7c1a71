#include "models/train/run_folder.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "attnmux/error.h"
#include "attnmux/log.h"
#include "models/io/atomic_file.h"
#include "models/train/report.h"

namespace attnmux {
namespace {

namespace fs = std::filesystem;

std::string in_run(const TrainConfig& config, const char* name) {
  return (fs::path(config.train.output) / name).string();
}

MetricsLog prepare_folder(const TrainPlan& plan) {
  const TrainSection& train = plan.config.train;
  std::error_code failed;
  fs::create_directories(train.output, failed);
  if (failed) throw Error(ErrorCode::kIo, "train.output = " + train.output + ": cannot make it: " + failed.message());
  write_file_atomically(in_run(plan.config, "config.toml"), to_toml(plan.config));
  prune_checkpoints(train.output, train.keep_checkpoints);
  return MetricsLog::open(in_run(plan.config, "metrics.jsonl"), plan.checkpoint ? plan.steps_done : -1);
}

// The folder itself or the nearest one above it that exists must be one that can be written to.
void check_can_be_made(const std::string& output) {
  std::error_code ignored;
  fs::path above = output;
  while (above.has_relative_path() && !fs::exists(fs::symlink_status(above, ignored))) above = above.parent_path();
  const std::string what = "train.output = " + output + ": ";
  if (!fs::is_directory(above, ignored)) {
    throw Error(ErrorCode::kConfig, what + above.string() + " is no folder; name one that can be made");
  }
  if (::access(above.c_str(), W_OK | X_OK) != 0) {
    throw Error(ErrorCode::kConfig,
                what + above.string() + " cannot be written to: " + std::strerror(errno) + "; name another folder");
  }
}

}  // namespace

RunFolder::RunFolder(const TrainPlan& plan, const TrainHooks& hooks)
    : plan_(plan), hooks_(hooks), log_(prepare_folder(plan)) {}

void RunFolder::record(const StepMetrics& metrics) {
  log_.append(metrics);
  if (hooks_.on_step) hooks_.on_step(metrics);
}

void RunFolder::save_if_due(const ParameterStore& parameters, const AdamW& optimizer, const Progress& progress) {
  const TrainSection& train = plan_.config.train;
  const bool due = progress.step == train.steps || (train.save_every > 0 && progress.step % train.save_every == 0);
  if (!due) return;
  log_.sync();
  save_checkpoint(train.output, plan_.config.model.path, parameters, optimizer, progress);
  prune_checkpoints(train.output, train.keep_checkpoints);
  if (hooks_.on_checkpoint) hooks_.on_checkpoint(*newest_checkpoint(train.output));
}

TrainResult RunFolder::finish() {
  TrainResult result;
  result.metrics = read_metrics(in_run(plan_.config, "metrics.jsonl"));
  if (!result.metrics.empty() && result.metrics.front().step == 0) {
    result.heldout_before = result.metrics.front().heldout_loss;
  }
  if (!result.metrics.empty()) result.heldout_after = result.metrics.back().heldout_loss;
  result.checkpoint = newest_checkpoint(plan_.config.train.output).value_or("");
  result.report = in_run(plan_.config, "report.html");
  write_report(plan_, result.metrics, result.report);
  return result;
}

void check_run_folder(const TrainConfig& config, Resume resume) {
  check_can_be_made(config.train.output);
  const std::string resolved = in_run(config, "config.toml");
  if (!fs::exists(resolved)) {
    if (resume == Resume::kYes) log_warning("nothing to resume in " + config.train.output + ": a new run begins there");
    return;
  }
  if (resume == Resume::kNo) {
    throw Error(ErrorCode::kUsage,
                config.train.output + " already holds a run; pass --resume to go on with it, or another train.output");
  }
  // Read as a config, so that keys which the run's version did not know have their defaults.
  const std::vector<std::string> changed = differences(to_toml(load_train_config(resolved, {})), to_toml(config));
  if (changed.empty()) return;
  std::string text = config.train.output + " holds a run of another config:";
  for (const std::string& line : changed) text += "\n  " + line;
  throw Error(ErrorCode::kUsage, text + "\nResume with the config of the run (" + resolved +
                                     "), or start a new run with another train.output");
}

}  // namespace attnmux
