#include "models/train/score.h"

#include <ATen/ATen.h>

#include <chrono>
#include <cmath>
#include <optional>

#include "attnmux/error.h"
#include "attnmux/mask_io.h"
#include "attnmux/plugin_loader.h"
#include "attnmux/spelling.h"
#include "models/io/atomic_file.h"
#include "tools/attnmux/command.h"
#include "tools/attnmux/dispatch_flags.h"
#include "tools/attnmux/model_policy.h"
#include "tools/attnmux/progress.h"

namespace attnmux::tool {
namespace {

constexpr size_t kDocumentsShown = 20;

at::ScalarType dtype_of(const std::string& name) {
  if (name == "fp32") return at::kFloat;
  if (name == "bf16") return at::kBFloat16;
  if (name == "fp64") return at::kDouble;
  throw Error(ErrorCode::kUsage, unknown_word("dtype", name, {"fp32", "bf16", "fp64"}));
}

void print(const ScoreResult& result) {
  print_line("tokens      " + with_separators(result.tokens));
  print_line("loss        " + fixed(result.loss, 6) + " nats a token");
  print_line("perplexity  " + fixed(std::exp(result.loss), 4));
  if (result.documents.size() < 2) return;
  std::vector<std::vector<std::string>> rows{{"document", "tokens", "loss"}};
  for (size_t i = 0; i < std::min(result.documents.size(), kDocumentsShown); ++i) {
    const DocumentScore& document = result.documents[i];
    rows.push_back({std::to_string(i), with_separators(document.tokens),
                    document.loss ? fixed(*document.loss, 6) : std::string("-")});
  }
  print_line("");
  print_table(rows);
  if (result.documents.size() > kDocumentsShown) {
    print_line("and " + std::to_string(result.documents.size() - kDocumentsShown) + " more; --json lists all");
  }
}

// What takes less than two seconds says nothing of how far it is.
ScoreResult score_with_progress(const std::string& model, const ScoreInput& input, const SelectionPolicy& policy,
                                const PluginRegistry& registry, ScoreOptions options) {
  using Clock = std::chrono::steady_clock;
  std::optional<Progress> progress;
  Clock::time_point shown = Clock::now() + std::chrono::seconds(1);
  options.on_progress = [&](int64_t done, int64_t total) {
    if (Clock::now() - shown < std::chrono::seconds(1)) return;
    shown = Clock::now();
    if (!progress) progress.emplace(total, Progress::To::kStderr);
    progress->update(done, with_separators(input.input_ids.size(0)) + " tokens");
  };
  return score(model, input, policy, registry, options);
}

}  // namespace

int run_score(const Arguments& arguments) {
  std::string model, config, text, tokens, mask, logits, dtype = "fp32";
  ScoreOptions options;
  DispatchFlags dispatch_flags;
  bool json = false;
  Flags flags({.name = "score",
               .usage = "--model DIR (--text FILE | --tokens FILE) [flags]",
               .about = "Log-likelihoods of a text, or of packed token sequences, under a Hugging Face checkpoint.\n"
                        "A tokens file holds input_ids [tokens] int64 and optionally cu_seqlens, cu_seqlens_padded, "
                        "position_ids\nand labels (safetensors); for a model that reads images also pixel_values "
                        "[patches, values]\nand image_grid_thw [images, 3].",
               .examples = {"attnmux score --model build/data/smollm2 --text notes.txt",
                            "attnmux score --model build/data/smollm2 --tokens batch.safetensors --logits "
                            "logits.safetensors --json"}});
  flags.add("model", model, Need::kRequired, "DIR", "config.json, *.safetensors, tokenizer.json");
  flags.add("config", config, Need::kOptional, "F.toml",
            "[[attention.rules]]; without them what config.json names, else magi");
  flags.add("text", text, Need::kOptional, "FILE", "a UTF-8 text, scored as one document");
  flags.add("tokens", tokens, Need::kOptional, "FILE", "a safetensors file of tokens");
  flags.add("mask", mask, Need::kOptional, "M", "instead of causal within each document; see `attnmux plan --help`");
  flags.add("logits", logits, Need::kOptional, "FILE", "also write logits [tokens, vocab] fp32");
  flags.add("dtype", dtype, Need::kOptional, "T", "of weights and arithmetic: fp32, bf16 or fp64");
  dispatch_flags.add_to(flags);
  flags.add("json", json, "answer as one JSON document");
  if (!flags.parse(arguments)) return 0;
  if (text.empty() == tokens.empty()) {
    throw Error(ErrorCode::kUsage, "attnmux score: give either --text or --tokens. See `attnmux score --help`");
  }
  check_output_path(logits);
  options.dtype = dtype_of(dtype);
  options.logits_file = logits;
  if (!mask.empty()) options.mask = parse_mask(mask);
  const SelectionPolicy policy = model_policy(model, config);
  PluginRegistry registry;
  load_plugins({.files = policy.plugins}, registry);

  const ScoreInput input = tokens.empty() ? read_score_text(model, text) : read_score_tokens(tokens);
  const DispatchOptions dispatch = dispatch_flags.options(flags, input.input_ids.size(0));
  options.cp = dispatch.cp;
  options.chunk_size = dispatch.chunk_size;
  const ScoreResult result = score_with_progress(model, input, policy, registry, options);
  if (json) {
    print_line(to_json(result));
  } else {
    print(result);
  }
  return 0;
}

}  // namespace attnmux::tool
