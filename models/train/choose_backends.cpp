#include "models/train/choose_backends.h"

#include <filesystem>

#include "attnmux/selection_policy.h"
#include "models/families/families.h"
#include "models/io/atomic_file.h"

namespace attnmux {
namespace {

AttentionUse attention_use(const TrainConfig& config) {
  return {.masks = {MaskFamily::kVarlenCausal},
          .empty_rows = false,
          .dtype = config.train.dtype == "bf16" ? DType::kBFloat16 : DType::kFloat32,
          .device = DeviceKind::kCpu,
          .max_tokens = config.data.seq_len,
          .training = true,
          .cp_size = config.parallel.cp};
}

}  // namespace

SelectionPolicy training_policy(const TrainConfig& config) {
  const std::string config_json = (std::filesystem::path(config.model.path) / "config.json").string();
  return resolve_policy({.toml = config.attention_toml,
                         .toml_file = config.attention_file,
                         .config_json = read_whole_file(config_json),
                         .config_json_file = config_json});
}

SelectionTable choose_backends(const TrainConfig& config, const SelectionPolicy& policy,
                               const PluginRegistry& registry) {
  const ModelConfig model = read_model_config(config.model.path);
  return select(policy, attention_modules(model, attention_use(config)), registry);
}

}  // namespace attnmux
