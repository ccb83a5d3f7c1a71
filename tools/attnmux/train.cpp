#include <cstdlib>

#include "attnmux/error.h"
#include "attnmux/plugin_loader.h"
#include "models/train/choose_backends.h"
#include "models/train/trainer.h"
#include "tools/attnmux/command.h"
#include "tools/attnmux/progress.h"

namespace attnmux::tool {
namespace {

// Under torchrun or mpirun each process would train the same run into the same folder.
void refuse_several_processes() {
  for (const char* name : {"WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}) {
    const char* size = std::getenv(name);
    if (size && *size && std::string(size) != "1") {
      throw Error(ErrorCode::kUsage, "attnmux train: " + std::string(name) + "=" + size +
                                         " says that several processes train together; this version trains in one. "
                                         "Start it without torchrun or mpirun");
    }
  }
}

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
  std::string file;
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
  if (!flags.parse(arguments)) return 0;
  refuse_several_processes();

  const TrainConfig config = load_train_config(file, sets);
  PluginRegistry registry;
  load_plugins({.files = training_policy(config).plugins}, registry);
  const TrainPlan plan = plan_training(config, registry, resume ? Resume::kYes : Resume::kNo);
  std::string description = describe(plan);
  while (description.ends_with('\n')) description.pop_back();
  print_line(description);
  if (dry_run) return 0;

  TrainResult result;
  {
    Progress progress(config.train.steps);
    result = train(plan, {.on_step = [&](const StepMetrics& metrics) {
                     if (metrics.step > 0) progress.update(metrics.step, text_of(metrics));
                   }});
  }
  print_line(summary(result));
  return 0;
}

}  // namespace attnmux::tool
