#include <optional>

#include "attnmux/launch.h"
#include "attnmux/log.h"
#include "attnmux/plugin_loader.h"
#include "models/io/atomic_file.h"
#include "models/train/check_launch.h"
#include "models/train/choose_backends.h"
#include "models/train/trainer.h"
#include "tools/attnmux/command.h"
#include "tools/attnmux/progress.h"

namespace attnmux::tool {
namespace {

std::string text_of(const StepMetrics& metrics) {
  return "loss " + fixed(metrics.loss, 4) + "  " + fixed(metrics.tokens_per_s, 0) + " tokens/s  grad norm " +
         fixed(metrics.grad_norm, 3);
}

std::string summary(const TrainResult& result) {
  std::string text;
  if (result.heldout_before && result.heldout_after) {
    text += "held-out loss  " + fixed(*result.heldout_before, 4) + " before, " + fixed(*result.heldout_after, 4) +
            " after\n";
  }
  return text + "checkpoint     " + result.checkpoint + "\nreport         " + result.report;
}

}  // namespace

int run_train(const Arguments& arguments) {
  std::string file, trace;
  std::vector<std::string> sets;
  bool resume = false, dry_run = false;
  Flags flags({.name = "train",
               .usage = "F.toml [--set key.path=value]... [--resume] [--dry-run]",
               .about = "Fine-tunes a model. The run folder holds the resolved config, metrics.jsonl, checkpoints in "
                        "Hugging Face layout\nand report.html.",
               .examples = {"attnmux train tools/recipes/jargon.toml",
                            "attnmux train tools/recipes/jargon.toml --set train.steps=100 --set train.lr=2e-4",
                            "attnmux train tools/recipes/jargon.toml --resume"}});
  flags.add_positional("F.toml", file, "tables [model] [attention] [parallel] [data] [train]; see tools/README.md");
  flags.add("set", sets, "KEY=VALUE", "a value in place of the file's, e.g. train.steps=100; may be repeated");
  flags.add("resume", resume, "go on from the newest complete checkpoint of the run folder");
  flags.add("dry-run", dry_run, "check everything but the weights, print what would be done, write nothing");
  flags.add("trace", trace, Need::kOptional, "FILE",
            "write when each rank computed and exchanged what: a Chrome trace, for a few steps");
  if (!flags.parse(arguments)) return 0;

  const TrainConfig config = load_train_config(file, sets);
  check_output_path(trace);
  const std::optional<LaunchedRank> launched = launched_rank();
  check_launch(config, launched);
  const bool speaks = !launched || launched->rank == 0;
  PluginRegistry registry;
  load_plugins({.files = training_policy(config).plugins}, registry);
  TrainPlan plan = plan_training(config, registry, resume ? Resume::kYes : Resume::kNo);
  std::string description = describe(plan);
  while (description.ends_with('\n')) description.pop_back();
  if (speaks) print_line(description);
  if (dry_run) {
    if (plan.transport && !launched) {
      log_warning("no launcher has started this process: whether " +
                  std::to_string(config.parallel.dp * config.parallel.cp) + " of them come up was not checked");
    }
    return 0;
  }
  if (!trace.empty()) plan.trace = std::make_shared<Trace>();

  TrainResult result;
  {
    Progress progress(config.train.steps);
    result = train(plan, {.on_step = [&](const StepMetrics& metrics) {
                     if (metrics.step > 0) progress.update(metrics.step, text_of(metrics));
                   }});
  }
  if (speaks) print_line(summary(result));
  if (speaks && plan.trace) write_file_atomically(trace, plan.trace->to_json());
  return 0;
}

}  // namespace attnmux::tool
