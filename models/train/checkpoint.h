// Checkpoints of a run: OUTPUT/checkpoints/step-00000024/, a Hugging Face folder with the trainer's state beside it.
//
//   save_checkpoint(output, model_dir, parameters, optimizer, progress);
//   std::optional<std::string> dir = newest_checkpoint(output);
//   Progress progress = load_trainer_state(*dir, optimizer);
//
// A checkpoint is written into a hidden folder, synced and renamed: under its final name it is complete, whenever the
// process or the machine stops. Files: config.json (dtype set to that of the weights), model.safetensors, the
// tokenizer's files, trainer_state.safetensors (optimizer moments; step, data position, seed and thread count as
// metadata). One thread, one process for a run folder.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "models/data/packing.h"
#include "models/nn/parameter_store.h"
#include "models/train/adamw.h"

namespace attnmux {

// Where a run stands. All randomness is a function of seed and epoch, so the seed is the whole state of it.
struct Progress {
  int64_t step = 0;  // steps done
  DataPosition position;
  uint64_t seed = 0;
};

// Throws Error(kIo) when the disk is full or refuses; nothing is left behind and earlier checkpoints stay.
void save_checkpoint(const std::string& output, const std::string& model_dir, const ParameterStore& parameters,
                     const AdamW& optimizer, const Progress& progress);

// The complete checkpoint of the highest step; nullopt where there is none.
std::optional<std::string> newest_checkpoint(const std::string& output);

// Fills the optimizer and returns where to go on. Throws Error(kBadFile) naming the file. Warns when the number of
// threads is another one: sums are then cut differently and the last bits of results change.
Progress load_trainer_state(const std::string& checkpoint, AdamW& optimizer);
// The same without an optimizer.
Progress read_progress(const std::string& checkpoint);

// Removes what an interrupted save has left, and all but the newest `keep` checkpoints (0: none of them).
void prune_checkpoints(const std::string& output, int64_t keep);

}  // namespace attnmux
