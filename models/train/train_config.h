// What `attnmux train F.toml` is told: the whole run as one value.
//
//   TrainConfig config = load_train_config("train.toml", {"train.steps=10", "model.path=/models/smollm2"});
//   std::string resolved = to_toml(config);      // every key with its value, as the run folder holds it
//
// Tables: [model] [attention] [parallel] [data] [train]; keys and defaults are the fields below. Relative paths in the
// file are relative to the file, those of --set to the working directory. Plain values, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/data/conversation_encoder.h"
#include "models/data/documents.h"

namespace attnmux {

struct ModelSection {
  std::string path;                 // required: a Hugging Face folder
  std::string attn_implementation;  // optional
};

struct ParallelSection {
  int64_t dp = 1;
  int64_t cp = 1;
  std::string group = "threads";  // threads | mpi | nccl
  int64_t chunk_size = 512;       // tokens that stay together when a sequence is dealt out to cp ranks
  int64_t stages = 1;             // exchanges that keys from other ranks come in; 0: as the cost model chooses
  int64_t backward_stages = 1;    // the same in backward; default: as many
  bool keep_remote_keys = false;  // from forward to backward: less traffic, more memory
  std::string calibration;        // costs that stages are chosen by, a file of `attnmux bench comm`; "": assumed ones
  int64_t deadline_s = 300;       // a rank that does not answer within it ends the run
};

struct DataSection {
  DataKind kind = DataKind::kText;   // required: text | jsonl
  std::vector<std::string> path;     // required
  std::vector<std::string> heldout;  // documents whose loss is taken at the start and at the end
  int64_t seq_len = 0;               // required
  bool packing = true;
  ChatLabels labels = ChatLabels::kAssistant;  // assistant | all: what is learned of a conversation
};

struct TrainSection {
  int64_t steps = 0;       // required
  int64_t batch_size = 0;  // sequences a step, a multiple of parallel.dp; 0: parallel.dp
  double lr = 5e-5;
  int64_t warmup_steps = 0;
  double weight_decay = 0.0;  // of matrices; norms and biases are not decayed
  double grad_clip = 1.0;     // 0: none
  int64_t seed = 0;
  std::string dtype = "fp32";  // fp32 | bf16 (parameters bf16; their gradients and master copies fp32)
  bool activation_checkpointing = false;
  int64_t save_every = 0;        // steps between checkpoints; the last step is always saved
  int64_t keep_checkpoints = 2;  // older ones are removed; 0: all are kept
  std::string output;            // required: the run folder
};

struct TrainConfig {
  std::string file;  // as given, for messages
  ModelSection model;
  ParallelSection parallel;
  DataSection data;
  TrainSection train;
  std::string attention_toml;  // what selection reads: [attention] and [model] attn_implementation
  std::string attention_file;  // the name under which selection reports problems in it
};

// Reads the file and applies `sets`, each "key.path=value" with a TOML value (a bare word is a string). Throws one
// Error(kConfig) that lists every problem with file, line and column (or the --set at fault): unknown keys with the
// nearest spelling, missing keys, wrong types, values out of range. Error(kBadFile) when the file cannot be read.
TrainConfig load_train_config(const std::string& file, const std::vector<std::string>& sets);

// The same from text; relative paths are relative to the folder of `file`.
TrainConfig parse_train_config(const std::string& text, const std::string& file, const std::vector<std::string>& sets);

// A TOML file that gives the same config from any folder.
std::string to_toml(const TrainConfig& config);

// One line for each key of two resolved configs that differs and that decides the numbers of a run ("train.lr: was
// 1e-4, is 2e-4"). Output, save_every, keep_checkpoints, group and deadline_s do not.
std::vector<std::string> differences(const std::string& resolved_before, const std::string& resolved_now);

}  // namespace attnmux
