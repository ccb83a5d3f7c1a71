#include "models/train/checkpoint.h"

#include <ATen/Parallel.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "attnmux/error.h"
#include "attnmux/log.h"
#include "models/io/atomic_file.h"

namespace attnmux {
namespace {

namespace fs = std::filesystem;

constexpr char kStateFile[] = "trainer_state.safetensors";
constexpr char kStateFormat[] = "attnmux trainer state 1";
constexpr char kPartial[] = ".partial-";  // a hidden folder: a checkpoint in the making, or one that is being removed
// What transformers reads beside config.json and the weights.
const std::vector<std::string> kCopiedFiles = {"tokenizer.json",
                                               "tokenizer_config.json",
                                               "special_tokens_map.json",
                                               "added_tokens.json",
                                               "vocab.json",
                                               "merges.txt",
                                               "tokenizer.model",
                                               "generation_config.json",
                                               "chat_template.jinja",
                                               "chat_template.json",
                                               "processor_config.json",
                                               "preprocessor_config.json",
                                               "video_preprocessor_config.json"};

[[noreturn]] void io_error(const std::string& path, const std::string& what) {
  throw Error(ErrorCode::kIo, path + ": " + what + ": " + std::strerror(errno));
}

fs::path checkpoints_of(const std::string& output) { return fs::path(output) / "checkpoints"; }

std::string checkpoint_name(int64_t step) {
  char name[32];
  std::snprintf(name, sizeof name, "step-%08lld", static_cast<long long>(step));
  return name;
}

void sync_folder(const fs::path& dir) {
  const int fd = ::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) io_error(dir, "cannot be opened");
  const bool synced = ::fsync(fd) == 0;
  ::close(fd);
  if (!synced) io_error(dir, "cannot be synced");
}

// config.json with the dtype that the weights now have, under the key that the file uses.
std::string config_json(const std::string& model_dir, at::ScalarType dtype) {
  const std::string path = (fs::path(model_dir) / "config.json").string();
  auto config = nlohmann::ordered_json::parse(read_whole_file(path), nullptr, /*allow_exceptions=*/false);
  if (!config.is_object()) throw Error(ErrorCode::kBadFile, path + ": not a JSON object");
  const char* name = dtype == at::kBFloat16 ? "bfloat16" : "float32";
  if (config.contains("torch_dtype")) config["torch_dtype"] = name;
  if (config.contains("dtype") || !config.contains("torch_dtype")) config["dtype"] = name;
  return config.dump(2) + "\n";
}

std::map<std::string, std::string> to_metadata(const Progress& progress) {
  return {{"format", kStateFormat},
          {"step", std::to_string(progress.step)},
          {"epoch", std::to_string(progress.position.epoch)},
          {"document", std::to_string(progress.position.document)},
          {"token", std::to_string(progress.position.token)},
          {"seed", std::to_string(progress.seed)},
          {"threads", std::to_string(at::get_num_threads())}};
}

int64_t metadata_number(const SafetensorsFile& file, const std::string& key) {
  const auto found = file.metadata().find(key);
  if (found == file.metadata().end()) {
    throw Error(ErrorCode::kBadFile, file.path() + ": the metadata lacks \"" + key + "\"; this is no trainer state");
  }
  return static_cast<int64_t>(std::stoull(found->second));
}

Progress progress_of(const SafetensorsFile& file) {
  return {.step = metadata_number(file, "step"),
          .position = {.epoch = metadata_number(file, "epoch"),
                       .document = metadata_number(file, "document"),
                       .token = metadata_number(file, "token")},
          .seed = static_cast<uint64_t>(metadata_number(file, "seed"))};
}

void write_files(const fs::path& dir, const std::string& model_dir, const ParameterStore& parameters,
                 const AdamW& optimizer, const Progress& progress) {
  for (const std::string& name : kCopiedFiles) {
    const fs::path source = fs::path(model_dir) / name;
    if (fs::exists(source)) write_file_atomically((dir / name).string(), read_whole_file(source.string()));
  }
  std::vector<NamedTensor> weights;
  for (const std::string& name : parameters.names()) weights.push_back({name, parameters.at(name).detach()});
  write_file_atomically((dir / "config.json").string(), config_json(model_dir, weights.front().tensor.scalar_type()));
  write_safetensors((dir / "model.safetensors").string(), weights, {{"format", "pt"}});
  write_safetensors((dir / kStateFile).string(), optimizer.state(), to_metadata(progress));
}

// Complete checkpoints, ascending.
std::vector<fs::path> complete_checkpoints(const std::string& output) {
  std::vector<fs::path> found;
  if (!fs::exists(checkpoints_of(output))) return found;
  for (const auto& entry : fs::directory_iterator(checkpoints_of(output))) {
    if (entry.path().filename().string().starts_with("step-")) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

// Renamed first: a checkpoint that is half removed never looks complete.
void remove_checkpoint(const fs::path& checkpoint) {
  const fs::path hidden = checkpoint.parent_path() / (kPartial + checkpoint.filename().string());
  fs::remove_all(hidden);
  fs::rename(checkpoint, hidden);
  fs::remove_all(hidden);
}

}  // namespace

void save_checkpoint(const std::string& output, const std::string& model_dir, const ParameterStore& parameters,
                     const AdamW& optimizer, const Progress& progress) {
  const std::string name = checkpoint_name(progress.step);
  const fs::path complete = checkpoints_of(output) / name;
  const fs::path partial = checkpoints_of(output) / (kPartial + name);
  try {
    fs::remove_all(partial);
    fs::create_directories(partial);
    write_files(partial, model_dir, parameters, optimizer, progress);
    sync_folder(partial);
    fs::rename(partial, complete);
    sync_folder(checkpoints_of(output));
  } catch (const std::exception& error) {
    std::error_code ignored;  // the first failure is the one to report
    fs::remove_all(partial, ignored);
    throw Error(ErrorCode::kIo, "checkpoint of step " + std::to_string(progress.step) + " could not be saved: " +
                                    error.what() + "\nEarlier checkpoints in " + checkpoints_of(output).string() +
                                    " are untouched. Make room there, then go on with --resume.");
  }
}

std::optional<std::string> newest_checkpoint(const std::string& output) {
  const std::vector<fs::path> found = complete_checkpoints(output);
  if (found.empty()) return std::nullopt;
  return found.back().string();
}

Progress read_progress(const std::string& checkpoint) {
  return progress_of(SafetensorsFile::open((fs::path(checkpoint) / kStateFile).string()));
}

Progress load_trainer_state(const std::string& checkpoint, AdamW& optimizer) {
  const SafetensorsFile file = SafetensorsFile::open((fs::path(checkpoint) / kStateFile).string());
  const Progress progress = progress_of(file);
  optimizer.load_state(file, progress.step);
  const int64_t threads = metadata_number(file, "threads");
  if (threads != at::get_num_threads()) {
    log_warning("resumed with " + std::to_string(at::get_num_threads()) + " threads, saved with " +
                std::to_string(threads) + ": results will differ in their last bits (set OMP_NUM_THREADS)");
  }
  return progress;
}

void prune_checkpoints(const std::string& output, int64_t keep) {
  if (!fs::exists(checkpoints_of(output))) return;
  for (const auto& entry : fs::directory_iterator(checkpoints_of(output))) {
    if (entry.path().filename().string().starts_with(kPartial)) fs::remove_all(entry.path());
  }
  const std::vector<fs::path> found = complete_checkpoints(output);
  if (keep <= 0) return;
  for (size_t i = 0; i + static_cast<size_t>(keep) < found.size(); ++i) remove_checkpoint(found[i]);
}

}  // namespace attnmux
