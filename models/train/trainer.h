// The main job: `attnmux train`.
//
//   TrainPlan plan = plan_training(config, registry, Resume::kNo);   // reads and checks everything but the weights
//   std::cout << describe(plan);                                     // --dry-run ends here; nothing has been written
//   TrainResult result = train(plan, {.on_step = [](const StepMetrics& metrics) { ... }});
//
// The run folder (config.train.output): config.toml (every key resolved), metrics.jsonl, checkpoints/, report.html.
// One run a folder and a process; hooks are called from the thread of rank 0.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "attnmux/cp_group.h"
#include "attnmux/plan_cache.h"
#include "attnmux/registry.h"
#include "attnmux/selection.h"
#include "attnmux/trace.h"
#include "models/data/packing.h"
#include "models/io/model_config.h"
#include "models/train/checkpoint.h"
#include "models/train/metrics.h"
#include "models/train/train_config.h"

namespace attnmux {

enum class Resume : uint8_t { kNo, kYes };

struct TrainPlan {
  TrainConfig config;
  ModelConfig model;
  std::shared_ptr<const SelectionTable> table;
  DocumentPacker::Documents documents;
  DocumentPacker::Documents heldout;      // empty list: none
  std::optional<std::string> checkpoint;  // where to go on from; nullopt: from the model's own weights, at step 0
  int64_t steps_done = 0;
  std::shared_ptr<const CpGroupFactory> transport;  // of ranks that are processes; nullptr: threads of this one
  std::shared_ptr<Trace> trace;  // gets all ranks' spans of attention and exchanges, rank 0's does; nullptr: none
  std::shared_ptr<PlanCache> plans = std::make_shared<PlanCache>();  // ranks of this process share it
};

// Reads config.json, tokenizer, selection rules and documents, and says where a resumed run goes on (with kYes and no
// complete checkpoint: from the start). Writes nothing. Errors: those of the parts; Error(kUsage) for a run folder that
// already holds a run (kNo) or one of another config (kYes, each key that differs is listed).
TrainPlan plan_training(const TrainConfig& config, const PluginRegistry& registry, Resume resume);

// What a person wants to see before it starts: model, data, steps, backends.
std::string describe(const TrainPlan& plan);

struct TrainHooks {
  std::function<void(const StepMetrics& metrics)> on_step;
  std::function<void(const std::string& path)> on_checkpoint;
};

struct TrainResult {
  std::vector<StepMetrics> metrics;  // of the whole run, resumed steps included
  std::optional<double> heldout_before;
  std::optional<double> heldout_after;
  std::string checkpoint;  // the last one
  std::string report;      // path of report.html
};

// All ranks of the run where they are threads of this process (parallel.group = "threads"), else the one that this
// process is; each has a model of its own. Killed at any moment, the run goes on from its newest complete checkpoint
// with the same numbers, bit for bit (CPU, fp32, the same number of threads). Whichever rank fails, all end with an
// error that names it.
TrainResult train(const TrainPlan& plan, const TrainHooks& hooks);

// One rank's part in it. Collective: every rank of `world` calls it with the same plan. Rank 0 writes the run folder,
// calls the hooks and returns the result; the others' results are empty. Throws Error(kRankDisagreement) where ranks
// have planned different runs.
TrainResult train(const TrainPlan& plan, const TrainHooks& hooks, CpGroup& world);

}  // namespace attnmux
