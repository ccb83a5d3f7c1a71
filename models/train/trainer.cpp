#include "models/train/trainer.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <sstream>
#include <utility>

#include "attnmux/error.h"
#include "models/families/families.h"
#include "models/io/atomic_file.h"
#include "models/io/tokenizer.h"
#include "models/train/choose_backends.h"
#include "models/train/evaluate.h"
#include "models/train/report.h"
#include "models/train/train_step.h"

namespace attnmux {
namespace {

namespace fs = std::filesystem;

std::string in_run(const TrainConfig& config, const char* name) {
  return (fs::path(config.train.output) / name).string();
}

at::ScalarType scalar_type(const TrainConfig& config) {
  return config.train.dtype == "bf16" ? at::kBFloat16 : at::kFloat;
}

int64_t eos_of(const Tokenizer& tokenizer, const ModelConfig& model, const std::string& dir) {
  if (tokenizer.eos_id()) return *tokenizer.eos_id();
  if (!model.eos_token_ids.empty()) return model.eos_token_ids.front();
  throw Error(ErrorCode::kConfig, dir +
                                      ": no end-of-sequence token, which closes each document; set eos_token in "
                                      "tokenizer_config.json or eos_token_id in config.json");
}

DocumentPacker::Documents read_tokens(const TrainConfig& config, const std::vector<std::string>& paths,
                                      const Tokenizer& tokenizer, int64_t eos, int64_t vocab_size) {
  auto documents = std::make_shared<std::vector<TokenizedDocument>>(
      tokenize_documents(read_documents(config.data.kind, paths), tokenizer, eos));
  for (const TokenizedDocument& document : *documents) {
    const auto largest = std::max_element(document.begin(), document.end());
    if (*largest >= vocab_size) {
      throw Error(ErrorCode::kConfig, config.model.path + ": tokenizer.json gives token " + std::to_string(*largest) +
                                          ", config.json has vocab_size " + std::to_string(vocab_size) +
                                          "; they belong to different models");
    }
  }
  return documents;
}

PackingOptions packing_options(const TrainConfig& config) {
  return {.seq_len = config.data.seq_len,
          .packing = config.data.packing,
          .shuffle = true,
          .repeat = true,
          .seed = static_cast<uint64_t>(config.train.seed)};
}

// Is the run folder as `resume` wants it?
void check_run_folder(const TrainConfig& config, Resume resume) {
  const std::string resolved = in_run(config, "config.toml");
  if (!fs::exists(resolved)) return;
  if (resume == Resume::kNo) {
    throw Error(ErrorCode::kUsage,
                config.train.output + " already holds a run; pass --resume to go on with it, or another train.output");
  }
  const std::vector<std::string> changed = differences(read_whole_file(resolved), to_toml(config));
  if (changed.empty()) return;
  std::string text = config.train.output + " holds a run of another config:";
  for (const std::string& line : changed) text += "\n  " + line;
  throw Error(ErrorCode::kUsage, text + "\nResume with the config of the run (" + resolved +
                                     "), or start a new run with another train.output");
}

std::unique_ptr<CausalLm> load_model(const TrainPlan& plan) {
  const std::string& dir = plan.checkpoint ? *plan.checkpoint : plan.config.model.path;
  return load_causal_lm(dir, {.dtype = scalar_type(plan.config), .training = true});
}

std::map<std::string, std::string> choices_text(const SelectionTable& table) {
  std::map<std::string, int64_t> counts;
  std::map<std::string, std::string> origins;
  for (const ModuleChoice& choice : table.choices()) {
    ++counts[choice.backend_id];
    origins.emplace(choice.backend_id, choice.rule.origin);
  }
  std::map<std::string, std::string> lines;
  for (const auto& [backend, count] : counts) {
    lines[backend] = std::to_string(count) + " attention modules, chosen by " + origins[backend];
  }
  return lines;
}

bool due(const TrainSection& train, int64_t step) {
  return step == train.steps || (train.save_every > 0 && step % train.save_every == 0);
}

}  // namespace

TrainPlan plan_training(const TrainConfig& config, const PluginRegistry& registry, Resume resume) {
  TrainPlan plan;
  plan.config = config;
  plan.model = read_model_config(config.model.path);
  plan.table = std::make_shared<const SelectionTable>(choose_backends(config, training_policy(config), registry));
  check_run_folder(config, resume);

  const Tokenizer tokenizer = Tokenizer::from_folder(config.model.path);
  const int64_t eos = eos_of(tokenizer, plan.model, config.model.path);
  plan.documents = read_tokens(config, config.data.path, tokenizer, eos, plan.model.vocab_size);
  plan.heldout = read_tokens(config, config.data.heldout, tokenizer, eos, plan.model.vocab_size);
  DocumentPacker(plan.documents, packing_options(config));  // throws where the text is shorter than one sequence

  plan.checkpoint = newest_checkpoint(config.train.output);
  if (plan.checkpoint) plan.steps_done = read_progress(*plan.checkpoint).step;
  return plan;
}

std::string describe(const TrainPlan& plan) {
  const TrainConfig& config = plan.config;
  const int64_t tokens = count_tokens(*plan.documents);
  std::ostringstream text;
  text << "model     " << config.model.path << ", " << plan.model.num_hidden_layers << " layers, "
       << plan.model.num_attention_heads << ":" << plan.model.num_key_value_heads << " heads of " << plan.model.head_dim
       << ", " << config.train.dtype << "\n"
       << "data      " << plan.documents->size() << " documents, " << tokens << " tokens, "
       << tokens / config.data.seq_len << " sequences of " << config.data.seq_len << " an epoch\n";
  if (!plan.heldout->empty()) {
    text << "held out  " << plan.heldout->size() << " documents, " << count_tokens(*plan.heldout) << " tokens\n";
  }
  text << "steps     " << config.train.steps;
  if (plan.steps_done > 0) text << ", going on after step " << plan.steps_done << " (" << *plan.checkpoint << ")";
  text << "\n";
  for (const auto& [backend, line] : choices_text(*plan.table)) text << "attention " << backend << ": " << line << "\n";
  text << "output    " << config.train.output << "\n";
  return text.str();
}

TrainResult train(const TrainPlan& plan, const TrainHooks& hooks) {
  const TrainConfig& config = plan.config;
  const std::unique_ptr<CausalLm> model = load_model(plan);
  AdamW optimizer(model->parameters(), {.weight_decay = config.train.weight_decay});
  DocumentPacker packer(plan.documents, packing_options(config));
  Progress progress{.step = 0, .position = {}, .seed = static_cast<uint64_t>(config.train.seed)};
  if (plan.checkpoint) {
    progress = load_trainer_state(*plan.checkpoint, optimizer);
    packer.seek(progress.position);
  }

  const std::string& output = config.train.output;
  fs::create_directories(output);
  write_file_atomically(in_run(config, "config.toml"), to_toml(config));
  prune_checkpoints(output, config.train.keep_checkpoints);
  MetricsLog log = MetricsLog::open(in_run(config, "metrics.jsonl"), plan.checkpoint ? progress.step : -1);

  const auto cache = std::make_shared<PreparedCache>();
  const auto heldout_loss = [&]() -> std::optional<double> {
    if (plan.heldout->empty()) return std::nullopt;
    return evaluate(*model, plan.heldout, config.data.seq_len, plan.table, cache).loss;
  };
  const auto record = [&](const StepMetrics& metrics) {
    log.append(metrics);
    if (hooks.on_step) hooks.on_step(metrics);
  };

  if (!plan.checkpoint && !plan.heldout->empty()) {
    StepMetrics before;
    before.heldout_loss = heldout_loss();
    record(before);
  }
  TrainState state{*model,
                   optimizer,
                   packer,
                   plan.table,
                   cache,
                   {.peak = config.train.lr, .warmup_steps = config.train.warmup_steps, .steps = config.train.steps},
                   config.train.grad_clip,
                   config.train.activation_checkpointing};
  while (progress.step < config.train.steps) {
    StepMetrics metrics = train_step(state, progress.step + 1);
    progress.step = metrics.step;
    progress.position = packer.position();
    if (progress.step == config.train.steps) metrics.heldout_loss = heldout_loss();
    record(metrics);
    if (!due(config.train, progress.step)) continue;
    log.sync();
    save_checkpoint(output, config.model.path, model->parameters(), optimizer, progress);
    prune_checkpoints(output, config.train.keep_checkpoints);
    if (hooks.on_checkpoint) hooks.on_checkpoint(*newest_checkpoint(output));
  }

  TrainResult result;
  result.metrics = read_metrics(in_run(config, "metrics.jsonl"));
  if (!result.metrics.empty() && result.metrics.front().step == 0) {
    result.heldout_before = result.metrics.front().heldout_loss;
  }
  if (!result.metrics.empty()) result.heldout_after = result.metrics.back().heldout_loss;
  result.checkpoint = newest_checkpoint(output).value_or("");
  result.report = in_run(config, "report.html");
  write_report(plan, result.metrics, result.report);
  return result;
}

}  // namespace attnmux
