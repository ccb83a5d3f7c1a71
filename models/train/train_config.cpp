#include "models/train/train_config.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <sstream>
#include <utility>

#include "attnmux/cp_group.h"
#include "attnmux/dist_attn_plan.h"
#include "attnmux/error.h"
#include "attnmux/spelling.h"
#include "models/io/atomic_file.h"
#include "models/train/toml_table.h"

namespace attnmux {
namespace {

namespace fs = std::filesystem;

const std::vector<std::string> kTables = {"model", "attention", "parallel", "data", "train"};
// Keys that decide no number of a run.
const std::vector<std::string> kFreeKeys = {"train.output",   "train.save_every",    "train.keep_checkpoints",
                                            "parallel.group", "parallel.deadline_s", "parallel.keep_remote_keys"};
// Keys whose relative paths are resolved.
const std::vector<std::string> kPathKeys = {"model.path",           "data.path",        "data.heldout", "train.output",
                                            "parallel.calibration", "attention.plugins"};

std::string absolute(const std::string& path, const fs::path& base) {
  return ((base.empty() ? fs::current_path() : fs::absolute(base)) / path).lexically_normal().string();
}

template <class Use>
void for_each_string(toml::node& node, const Use& use) {
  if (toml::value<std::string>* text = node.as_string()) use(**text);
  if (toml::array* array = node.as_array()) {
    for (toml::node& element : *array) for_each_string(element, use);
  }
}

toml::table parse_toml(const std::string& text, const std::string& file) {
  try {
    return toml::parse(text, file);
  } catch (const toml::parse_error& error) {
    const toml::source_position at = error.source().begin;
    throw Error(ErrorCode::kConfig, file + ":" + std::to_string(at.line) + ":" + std::to_string(at.column) + ": " +
                                        std::string(error.description()));
  }
}

// `true`, `3`, `1e-4`, `"text"`, `["a", "b"]`, or a bare word, which is a string.
toml::table parse_value(const std::string& value) {
  try {
    toml::table table = toml::parse("value = " + value);
    if (table.size() == 1) return table;  // else a line break in it began another key
    throw Error(ErrorCode::kUsage, "--set ...=" + value + ": one value is expected; repeat --set for each key");
  } catch (const toml::parse_error&) {  // not TOML: the shell has eaten the quotes of a string
    toml::table table;
    table.insert("value", value);
    return table;
  }
}

void apply_set(toml::table& root, const std::string& set, std::map<std::string, std::string>& origins) {
  const size_t equals = set.find('=');
  const std::string key = set.substr(0, equals);
  const size_t dot = key.find('.');
  if (equals == std::string::npos || dot == std::string::npos || dot == 0 || key.find('.', dot + 1) < key.size()) {
    throw Error(ErrorCode::kUsage, "--set " + set + ": expected table.key=value, e.g. --set train.steps=10");
  }
  const std::string table_name = key.substr(0, dot);
  if (!root.contains(table_name)) root.insert(table_name, toml::table{});
  toml::table* table = root.get_as<toml::table>(table_name);
  if (table == nullptr) throw Error(ErrorCode::kUsage, "--set " + set + ": " + table_name + " is not a table");
  toml::table parsed = parse_value(set.substr(equals + 1));
  toml::node& value = *parsed.get("value");
  if (std::find(kPathKeys.begin(), kPathKeys.end(), key) != kPathKeys.end()) {
    for_each_string(value, [](std::string& path) { path = absolute(path, fs::current_path()); });
  }
  table->insert_or_assign(key.substr(dot + 1), std::move(value));
  origins[key] = set;
}

void resolve_paths(toml::table& root, const fs::path& base) {
  for (const std::string& key : kPathKeys) {
    const size_t dot = key.find('.');
    toml::table* table = root.get_as<toml::table>(key.substr(0, dot));
    toml::node* node = table == nullptr ? nullptr : table->get(key.substr(dot + 1));
    if (node == nullptr) continue;
    for_each_string(*node, [&](std::string& path) {
      if (!path.empty()) path = absolute(path, base);
    });
  }
}

void check_tables(const toml::table& root, TomlProblems& problems) {
  for (const auto& [key, node] : root) {
    const std::string name(key.str());
    if (std::find(kTables.begin(), kTables.end(), name) != kTables.end()) continue;
    problems.add(name, key.source(), unknown_word(node.is_table() ? "table" : "key", name, kTables));
  }
}

void read_model(const toml::table& root, TomlProblems& problems, ModelSection& model) {
  TomlTable table(root, "model", problems);
  table.read("path", /*required=*/true, model.path);
  table.read("attn_implementation", /*required=*/false, model.attn_implementation);
  table.finish();
}

void read_parallel(const toml::table& root, TomlProblems& problems, int64_t seq_len, ParallelSection& parallel) {
  TomlTable table(root, "parallel", problems);
  table.read("dp", /*required=*/false, int64_t{1}, parallel.dp);
  table.read("cp", /*required=*/false, int64_t{1}, parallel.cp);
  table.read_choice("group", /*required=*/false, {"threads", "mpi", "nccl"}, parallel.group);
  table.read("chunk_size", /*required=*/false, int64_t{1}, parallel.chunk_size);
  table.read("stages", /*required=*/false, int64_t{0}, parallel.stages);
  parallel.backward_stages = parallel.stages;
  table.read("backward_stages", /*required=*/false, int64_t{0}, parallel.backward_stages);
  table.read("keep_remote_keys", /*required=*/false, parallel.keep_remote_keys);
  const auto at_most = [&](const char* key, int64_t value, int64_t most, const std::string& why) {
    if (value <= most) return;
    table.add_problem(key, "is " + std::to_string(value) + ", at most " + std::to_string(most) + " is expected" + why);
  };
  at_most("stages", parallel.stages, kMostStages, "");
  at_most("backward_stages", parallel.backward_stages, kMostStages, "");
  at_most("dp", parallel.dp, kMostRanks, "");
  at_most("cp", parallel.cp, kMostRanks, "");
  if (parallel.group == "threads" && std::max(parallel.dp, parallel.cp) <= kMostRanks) {
    at_most("cp", parallel.dp * parallel.cp, kMostThreadRanks,
            " for dp * cp: ranks are threads of one process; for more take group = \"mpi\"");
  }
  if (parallel.keep_remote_keys && parallel.backward_stages != parallel.stages) {
    table.add_problem("backward_stages", "is " + std::to_string(parallel.backward_stages) +
                                             " beside stages = " + std::to_string(parallel.stages) +
                                             "; with keep_remote_keys backward takes keys as they arrived in forward: "
                                             "leave out one of the two");
  }
  table.read("calibration", /*required=*/false, parallel.calibration);
  if (!parallel.calibration.empty() && parallel.stages != 0 && parallel.backward_stages != 0) {
    table.add_problem("calibration",
                      "decides nothing where stages and backward_stages are given; set one of them to 0 "
                      "to have it chosen, or leave calibration out");
  }
  table.read("deadline_s", /*required=*/false, int64_t{1}, parallel.deadline_s);
  if (parallel.cp > 1 && seq_len > 0 && parallel.chunk_size > seq_len) {
    table.add_problem("chunk_size", "is " + std::to_string(parallel.chunk_size) +
                                        ", longer than a sequence of data.seq_len = " + std::to_string(seq_len) +
                                        "; for cp = " + std::to_string(parallel.cp) + " take at most " +
                                        std::to_string((seq_len + parallel.cp - 1) / parallel.cp) +
                                        ", better a fraction of it: many chunks balance the ranks");
  }
  table.finish();
}

void read_data(const toml::table& root, TomlProblems& problems, DataSection& data) {
  TomlTable table(root, "data", problems);
  std::string kind;
  table.read_choice("kind", /*required=*/true, {"text", "jsonl"}, kind);
  data.kind = kind == "jsonl" ? DataKind::kJsonl : DataKind::kText;
  table.read("path", /*required=*/true, data.path);
  table.read("heldout", /*required=*/false, data.heldout);
  table.read("seq_len", /*required=*/true, int64_t{2}, data.seq_len);
  table.read("packing", /*required=*/false, data.packing);
  std::string labels = "assistant";
  table.read_choice("labels", /*required=*/false, {"assistant", "all"}, labels);
  data.labels = labels == "all" ? ChatLabels::kAll : ChatLabels::kAssistant;
  table.finish();
}

void read_train(const toml::table& root, TomlProblems& problems, int64_t dp, TrainSection& train) {
  TomlTable table(root, "train", problems);
  table.read("steps", /*required=*/true, int64_t{1}, train.steps);
  table.read("batch_size", /*required=*/false, int64_t{0}, train.batch_size);
  table.read("lr", /*required=*/false, 0.0, train.lr);
  table.read("warmup_steps", /*required=*/false, int64_t{0}, train.warmup_steps);
  table.read("weight_decay", /*required=*/false, 0.0, train.weight_decay);
  table.read("grad_clip", /*required=*/false, 0.0, train.grad_clip);
  table.read("seed", /*required=*/false, int64_t{0}, train.seed);
  table.read_choice("dtype", /*required=*/false, {"fp32", "bf16"}, train.dtype);
  table.read("activation_checkpointing", /*required=*/false, train.activation_checkpointing);
  table.read("save_every", /*required=*/false, int64_t{0}, train.save_every);
  table.read("keep_checkpoints", /*required=*/false, int64_t{0}, train.keep_checkpoints);
  table.read("output", /*required=*/true, train.output);
  if (train.batch_size == 0) train.batch_size = dp;
  if (dp >= 1 && train.batch_size % dp != 0) {
    table.add_problem("batch_size", "is " + std::to_string(train.batch_size) +
                                        ", allowed are multiples of parallel.dp = " + std::to_string(dp) +
                                        ": each replica of the model takes as many sequences as the others");
  }
  if (train.warmup_steps > train.steps) {
    table.add_problem("warmup_steps", "is " + std::to_string(train.warmup_steps) +
                                          ", more than train.steps = " + std::to_string(train.steps));
  }
  table.finish();
}

std::string to_text(const toml::table& table) {
  std::ostringstream text;
  text << toml::toml_formatter(table);
  return text.str();
}

toml::array to_array(const std::vector<std::string>& values) {
  toml::array array;
  for (const std::string& value : values) array.push_back(value);
  return array;
}

void flatten(const toml::node& node, const std::string& path, std::map<std::string, std::string>& flat) {
  if (const toml::table* table = node.as_table()) {
    for (const auto& [key, value] : *table) {
      flatten(value, path.empty() ? std::string(key.str()) : path + "." + std::string(key.str()), flat);
    }
    return;
  }
  std::ostringstream text;
  if (const toml::array* array = node.as_array()) {
    text << toml::toml_formatter(*array);
  } else {
    node.visit([&](const auto& value) {
      if constexpr (toml::is_value<decltype(value)>) text << *value;
    });
  }
  flat[path] = text.str();
}

}  // namespace

TrainConfig load_train_config(const std::string& file, const std::vector<std::string>& sets) {
  return parse_train_config(read_whole_file(file), file, sets);
}

TrainConfig parse_train_config(const std::string& text, const std::string& file, const std::vector<std::string>& sets) {
  toml::table root = parse_toml(text, file);
  resolve_paths(root, fs::path(file).parent_path());
  std::map<std::string, std::string> origins;
  for (const std::string& set : sets) apply_set(root, set, origins);

  TomlProblems problems(file, origins);
  TrainConfig config;
  config.file = file;
  check_tables(root, problems);
  read_model(root, problems, config.model);
  read_data(root, problems, config.data);
  read_parallel(root, problems, config.data.seq_len, config.parallel);
  read_train(root, problems, config.parallel.dp, config.train);
  problems.throw_if_any();

  // Selection reads the file itself, so that its messages name the file's lines, unless --set has changed its part.
  const bool changed = std::any_of(origins.begin(), origins.end(), [](const auto& entry) {
    return entry.first.starts_with("attention.") || entry.first == "model.attn_implementation";
  });
  config.attention_file = changed ? file + " with --set" : file;
  config.attention_toml = changed ? to_text(root) : text;
  return config;
}

std::string to_toml(const TrainConfig& config) {
  toml::table attention_root = parse_toml(config.attention_toml, config.attention_file);
  resolve_paths(attention_root, fs::path(config.file).parent_path());
  toml::table model{{"path", config.model.path}};
  if (!config.model.attn_implementation.empty()) {
    model.insert("attn_implementation", config.model.attn_implementation);
  }
  toml::table parallel{{"dp", config.parallel.dp},
                       {"cp", config.parallel.cp},
                       {"group", config.parallel.group},
                       {"chunk_size", config.parallel.chunk_size},
                       {"stages", config.parallel.stages},
                       {"backward_stages", config.parallel.backward_stages},
                       {"keep_remote_keys", config.parallel.keep_remote_keys},
                       {"deadline_s", config.parallel.deadline_s}};
  if (!config.parallel.calibration.empty()) parallel.insert("calibration", config.parallel.calibration);
  toml::table root{{"model", std::move(model)},
                   {"parallel", std::move(parallel)},
                   {"data", toml::table{{"kind", config.data.kind == DataKind::kJsonl ? "jsonl" : "text"},
                                        {"path", to_array(config.data.path)},
                                        {"heldout", to_array(config.data.heldout)},
                                        {"seq_len", config.data.seq_len},
                                        {"packing", config.data.packing},
                                        {"labels", config.data.labels == ChatLabels::kAll ? "all" : "assistant"}}},
                   {"train", toml::table{{"steps", config.train.steps},
                                         {"batch_size", config.train.batch_size},
                                         {"lr", config.train.lr},
                                         {"warmup_steps", config.train.warmup_steps},
                                         {"weight_decay", config.train.weight_decay},
                                         {"grad_clip", config.train.grad_clip},
                                         {"seed", config.train.seed},
                                         {"dtype", config.train.dtype},
                                         {"activation_checkpointing", config.train.activation_checkpointing},
                                         {"save_every", config.train.save_every},
                                         {"keep_checkpoints", config.train.keep_checkpoints},
                                         {"output", config.train.output}}}};
  if (toml::node* attention = attention_root.get("attention")) root.insert("attention", std::move(*attention));
  return to_text(root) + "\n";
}

std::vector<std::string> differences(const std::string& resolved_before, const std::string& resolved_now) {
  std::map<std::string, std::string> before, now;
  flatten(parse_toml(resolved_before, "config.toml of the run"), "", before);
  flatten(parse_toml(resolved_now, "config.toml"), "", now);
  std::vector<std::string> lines;
  const auto compare = [&](const std::string& key) {
    if (std::find(kFreeKeys.begin(), kFreeKeys.end(), key) != kFreeKeys.end()) return;
    const std::string was = before.contains(key) ? before[key] : "not set";
    const std::string is = now.contains(key) ? now[key] : "not set";
    if (was != is) lines.push_back(key + ": was " + was + ", is " + is);
  };
  std::map<std::string, std::string> all = before;
  all.insert(now.begin(), now.end());
  for (const auto& [key, value] : all) compare(key);
  return lines;
}

}  // namespace attnmux
