// The files of a run, in config.train.output: config.toml, metrics.jsonl, checkpoints/, report.html. One rank of a run
// writes them, and calls the run's hooks.
#pragma once

#include "models/nn/parameter_store.h"
#include "models/train/adamw.h"
#include "models/train/checkpoint.h"
#include "models/train/metrics.h"
#include "models/train/trainer.h"

namespace attnmux {

class RunFolder {
 public:
  // Makes the folder ready to go on after the plan's checkpoint. Throws Error(kIo). Plan and hooks outlive it.
  RunFolder(const TrainPlan& plan, const TrainHooks& hooks);

  void record(const StepMetrics& metrics);
  // A checkpoint of this progress, where one is due.
  void save_if_due(const ParameterStore& parameters, const AdamW& optimizer, const Progress& progress);
  // Writes the report.
  TrainResult finish();

 private:
  const TrainPlan& plan_;
  const TrainHooks& hooks_;
  MetricsLog log_;
};

// What resume finds there. Throws Error(kUsage) for a folder that already holds a run (kNo) or one of another config
// (kYes; each key that differs is listed).
void check_run_folder(const TrainConfig& config, Resume resume);

}  // namespace attnmux
