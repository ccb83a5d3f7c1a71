#include "models/train/trainer.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <sstream>
#include <utility>

#include "attnmux/agreement.h"
#include "attnmux/error.h"
#include "attnmux/launch.h"
#include "models/families/families.h"
#include "models/io/atomic_file.h"
#include "models/io/tokenizer.h"
#include "models/train/choose_backends.h"
#include "models/train/evaluate.h"
#include "models/train/gather_trace.h"
#include "models/train/run_folder.h"
#include "models/train/train_step.h"

namespace attnmux {
namespace {

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

void check_vocabulary(const TokenizedDocument& document, const ModelConfig& model, const std::string& dir) {
  const auto largest = std::max_element(document.ids.begin(), document.ids.end());
  if (*largest < model.vocab_size) return;
  throw Error(ErrorCode::kConfig, dir + ": tokenizer.json gives token " + std::to_string(*largest) +
                                      ", config.json has vocab_size " + std::to_string(model.vocab_size) +
                                      "; they belong to different models");
}

DocumentPacker::Documents read_tokens(const TrainConfig& config, const std::vector<std::string>& paths,
                                      const Tokenizer& tokenizer, const ModelConfig& model) {
  const std::string& dir = config.model.path;
  std::optional<int64_t> eos;                        // of the first text
  std::optional<ConversationEncoder> conversations;  // of the first conversation
  auto tokens = std::make_shared<std::vector<TokenizedDocument>>();
  for (const Document& document : read_documents(config.data.kind, paths)) {
    if (document.conversation) {
      const ChatOptions options{.labels = config.data.labels, .max_tokens = config.data.seq_len};
      if (!conversations) conversations.emplace(dir, model, tokenizer, options);
      tokens->push_back(conversations->encode(document));
    } else {
      if (!eos) eos = eos_of(tokenizer, model, dir);
      tokens->push_back(tokenize_text(document, tokenizer, *eos));
    }
    check_vocabulary(tokens->back(), model, dir);
  }
  return tokens;
}

PackingOptions packing_options(const TrainConfig& config) {
  return {.seq_len = config.data.seq_len,
          .packing = config.data.packing,
          .shuffle = true,
          .repeat = true,
          .seed = static_cast<uint64_t>(config.train.seed)};
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

CpGroupOptions group_options(const TrainPlan& plan) {
  CpGroupOptions options{.deadline = std::chrono::seconds(plan.config.parallel.deadline_s)};
  if (plan.trace) {
    options.observer = [trace = plan.trace](const CpEvent& event) {
      trace->add({event.rank, "exchange", event.call, event.begin, event.end});
    };
  }
  return options;
}

AttentionSize attention_size(const TrainPlan& plan) {
  return {.heads_q = plan.model.num_attention_heads,
          .heads_kv = plan.model.num_key_value_heads,
          .head_dim = plan.model.head_dim,
          .dtype = plan.config.train.dtype == "bf16" ? DType::kBFloat16 : DType::kFloat32};
}

OverlapOptions overlap_of(const ParallelSection& parallel) {
  return {.forward = {.stages = parallel.stages},
          .backward = {.stages = parallel.backward_stages},
          .keep_remote_keys = parallel.keep_remote_keys};
}

std::string stages_text(const ParallelSection& parallel) {
  const auto count = [](int64_t stages) { return stages == kAutoStages ? "chosen" : std::to_string(stages); };
  std::string text = count(parallel.stages);
  if (parallel.backward_stages != parallel.stages) text += " forward, " + count(parallel.backward_stages) + " backward";
  if (parallel.stages == kAutoStages || parallel.backward_stages == kAutoStages) {
    text += parallel.calibration.empty() ? " by assumed costs (`attnmux bench comm --output F` measures them)"
                                         : " by " + parallel.calibration;
  }
  return text + (parallel.keep_remote_keys ? ", remote keys kept" : "");
}

// What all ranks of a run must have read alike.
Hash128 hash_of(const TrainPlan& plan) {
  const std::string config = to_toml(plan.config);
  Hasher hasher;
  hasher.add_bytes(config.data(), config.size());
  hasher.add(plan.table->hash().hi);
  hasher.add(plan.table->hash().lo);
  hasher.add(count_tokens(*plan.documents));
  hasher.add(plan.steps_done);
  return hasher.finish();
}

}  // namespace

TrainPlan plan_training(const TrainConfig& config, const PluginRegistry& registry, Resume resume) {
  TrainPlan plan;
  plan.config = config;
  plan.model = read_model_config(config.model.path);
  if (config.parallel.group != "threads") plan.transport = registry.cp_group(config.parallel.group);
  plan.table = std::make_shared<const SelectionTable>(choose_backends(config, training_policy(config), registry));
  check_run_folder(config, resume);
  if (const std::string& file = config.parallel.calibration; !file.empty()) {
    plan.plans = std::make_shared<PlanCache>(cost_model_from_json(read_whole_file(file), file));
  }

  const Tokenizer tokenizer = Tokenizer::from_folder(config.model.path);
  plan.documents = read_tokens(config, config.data.path, tokenizer, plan.model);
  plan.heldout = read_tokens(config, config.data.heldout, tokenizer, plan.model);
  try {
    DocumentPacker(plan.documents, packing_options(config));  // throws where the text is shorter than one sequence
  } catch (const Error& error) {
    throw Error(error.code(), config.file + ": data.path and data.seq_len: " + error.what());
  }

  plan.checkpoint = newest_checkpoint(config.train.output);
  if (plan.checkpoint) plan.steps_done = read_progress(*plan.checkpoint).step;
  return plan;
}

std::string describe(const TrainPlan& plan) {
  const TrainConfig& config = plan.config;
  const int64_t tokens = count_tokens(*plan.documents);
  size_t images = 0;
  for (const TokenizedDocument& document : *plan.documents) images += document.images.size();
  std::ostringstream text;
  text << "model     " << config.model.path << ", " << plan.model.num_hidden_layers << " layers, "
       << plan.model.num_attention_heads << ":" << plan.model.num_key_value_heads << " heads of " << plan.model.head_dim
       << ", " << config.train.dtype << "\n"
       << "data      " << plan.documents->size() << " documents, "
       << (images > 0 ? std::to_string(images) + " images, " : "") << tokens << " tokens, "
       << (config.data.packing ? std::to_string(tokens / config.data.seq_len) + " sequences of "
                               : std::string("each apart, in sequences of at most "))
       << config.data.seq_len << " an epoch\n";
  if (!plan.heldout->empty()) {
    text << "held out  " << plan.heldout->size() << " documents, " << count_tokens(*plan.heldout) << " tokens\n";
  }
  if (config.parallel.dp * config.parallel.cp > 1) {
    text << "ranks     " << config.parallel.dp * config.parallel.cp << " (" << config.parallel.group << "): dp "
         << config.parallel.dp << ", cp " << config.parallel.cp << ", chunks of " << config.parallel.chunk_size
         << ", stages " << stages_text(config.parallel) << "\n";
  }
  text << "steps     " << config.train.steps;
  if (config.train.batch_size > 1) text << " of " << config.train.batch_size << " sequences";
  if (plan.steps_done > 0) text << ", going on after step " << plan.steps_done << " (" << *plan.checkpoint << ")";
  text << "\n";
  for (const auto& [backend, line] : choices_text(*plan.table)) text << "attention " << backend << ": " << line << "\n";
  text << "output    " << config.train.output << "\n";
  return text.str();
}

TrainResult train(const TrainPlan& plan, const TrainHooks& hooks) {
  TrainResult result;
  const auto train_rank = [&](CpGroup& world) {
    TrainResult mine = train(plan, hooks, world);
    if (world.rank() == 0) result = std::move(mine);
  };
  if (plan.transport) {
    run_launched_rank(*plan.transport, group_options(plan), [&](CpGroup& world) {
      train_rank(world);
      if (plan.trace) gather_trace(*plan.trace, world);
    });
  } else {
    run_threads_group(plan.config.parallel.dp * plan.config.parallel.cp, group_options(plan), train_rank);
  }
  return result;
}

TrainResult train(const TrainPlan& plan, const TrainHooks& hooks, CpGroup& world) {
  const TrainConfig& config = plan.config;
  const DeviceMesh mesh = make_device_mesh(world, {.dp = config.parallel.dp, .cp = config.parallel.cp});
  expect_agreement(world, hash_of(plan), "the run (its config, backends, documents or checkpoint)",
                   "Start every rank with the same files");
  const std::unique_ptr<CausalLm> model = load_model(plan);
  AdamW optimizer(model->parameters(), {.weight_decay = config.train.weight_decay});
  DocumentPacker packer(plan.documents, packing_options(config));
  Progress progress{.step = 0, .position = {}, .seed = static_cast<uint64_t>(config.train.seed)};
  if (plan.checkpoint) {
    progress = load_trainer_state(*plan.checkpoint, optimizer);
    packer.seek(progress.position);
  }
  TrainState state{
      .run = {.model = *model,
              .mesh = mesh,
              .table = plan.table,
              .cache = std::make_shared<PreparedCache>(),
              .plans = plan.plans,
              .sharding = {.dispatch = {.chunk_size = config.parallel.chunk_size},
                           .overlap = overlap_of(config.parallel),
                           .size = attention_size(plan)},
              .trace = plan.trace.get()},
      .optimizer = optimizer,
      .data = packer,
      .schedule = {.peak = config.train.lr, .warmup_steps = config.train.warmup_steps, .steps = config.train.steps},
      .batch_size = config.train.batch_size,
      .grad_clip = config.train.grad_clip,
      .activation_checkpointing = config.train.activation_checkpointing};
  const auto heldout_loss = [&]() -> std::optional<double> {
    if (plan.heldout->empty()) return std::nullopt;
    return evaluate(state.run, plan.heldout, config.data.seq_len).loss;
  };

  std::optional<RunFolder> folder;  // one rank writes
  if (world.rank() == 0) folder.emplace(plan, hooks);
  if (!plan.checkpoint && !plan.heldout->empty()) {
    StepMetrics before;
    before.heldout_loss = heldout_loss();
    if (folder) folder->record(before);
  }
  while (progress.step < config.train.steps) {
    StepMetrics metrics = train_step(state, progress.step + 1);
    progress.step = metrics.step;
    progress.position = packer.position();
    if (progress.step == config.train.steps) metrics.heldout_loss = heldout_loss();
    if (!folder) continue;
    folder->record(metrics);
    folder->save_if_due(model->parameters(), optimizer, progress);
  }
  TrainResult result;
  if (folder) result = folder->finish();
  world.barrier();  // the run has ended well for nobody before its last checkpoint stands
  return result;
}

}  // namespace attnmux
