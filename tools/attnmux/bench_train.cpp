#include <algorithm>
#include <nlohmann/json.hpp>

#include "attnmux/error.h"
#include "attnmux/plugin_loader.h"
#include "models/train/train_bench.h"
#include "tools/attnmux/command.h"
#include "tools/attnmux/model_policy.h"

namespace attnmux::tool {

using nlohmann::ordered_json;

int run_bench_train(const Arguments& arguments) {
  std::string model, config, dtype = "fp32";
  int64_t seq_len = 1024, documents = 1, repetitions = 5;
  bool checkpointing = false, json = false;
  Flags flags({.name = "bench train",
               .usage = "--model DIR [flags]",
               .about = "Measures a training step on one packed sequence of random tokens: forward, backward and "
                        "optimizer, after one\nstep that is not measured.",
               .examples = {"attnmux bench train --model build/data/smollm2 --seq-len 1024"}});
  flags.add("model", model, Need::kRequired, "DIR", "a Hugging Face folder");
  flags.add("config", config, Need::kOptional, "F.toml",
            "[[attention.rules]]; without them what config.json names, else magi");
  flags.add("seq-len", seq_len, "N", "tokens a step");
  flags.add("documents", documents, "N", "packed into them, of equal length");
  flags.add("dtype", dtype, Need::kOptional, "T", "fp32 or bf16");
  flags.add("activation-checkpointing", checkpointing, "recompute layers in the backward pass");
  flags.add("reps", repetitions, "N", "measured steps");
  flags.add("json", json, "answer as one JSON document");
  if (!flags.parse(arguments)) return 0;
  if (repetitions < 1) {
    throw Error(ErrorCode::kUsage, "attnmux bench train --reps " + std::to_string(repetitions) + ": at least 1");
  }
  const SelectionPolicy policy = model_policy(model, config);
  PluginRegistry registry;
  load_plugins({.files = policy.plugins}, registry);
  TrainBench bench(
      model, policy, registry,
      {.seq_len = seq_len, .documents = documents, .dtype = dtype, .activation_checkpointing = checkpointing});
  bench.step();
  std::vector<double> seconds;
  for (int64_t i = 0; i < repetitions; ++i) seconds.push_back(bench.step());
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  const double tokens_per_s = static_cast<double>(seq_len) / median, tflops = bench.flops() / median * 1e-12;
  if (json) {
    const ordered_json row{{"model", model},
                           {"seq_len", seq_len},
                           {"documents", documents},
                           {"dtype", dtype},
                           {"ms", median * 1e3},
                           {"ms_min", seconds.front() * 1e3},
                           {"tokens_per_s", tokens_per_s},
                           {"tflops", tflops},
                           {"peak_bytes", bench.last().peak_bytes},
                           {"backends", bench.last().backends}};
    print_json(ordered_json::array({row}));
  } else {
    print_table({{"model", "seq_len", "documents", "dtype", "ms", "ms_min", "tokens/s", "tflops"},
                 {model, std::to_string(seq_len), std::to_string(documents), dtype, fixed(median * 1e3, 1),
                  fixed(seconds.front() * 1e3, 1), fixed(tokens_per_s, 0), fixed(tflops, 4)}});
  }
  return 0;
}

}  // namespace attnmux::tool
