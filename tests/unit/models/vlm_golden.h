// A small vision-language model and what transformers makes of it (tests/golden/make_model_goldens.py vlm): sequences
// with no image ("text"), one, three, and packed documents with images.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "attnmux/mask_builders.h"
#include "attnmux/selection_policy.h"
#include "models/families/families.h"
#include "models/io/safetensors.h"
#include "tests/common/cpu_backends.h"

namespace attnmux::testing {

inline const std::string kVlm = ATTNMUX_SOURCE_DIR "/tests/golden/models/qwen2_5_vl";

struct VlmGolden {
  explicit VlmGolden(const std::string& name) : file(SafetensorsFile::open(kVlm + "/" + name + ".safetensors")) {
    const at::Tensor lengths = file.tensor("seqlens");
    seqlens.assign(lengths.const_data_ptr<int64_t>(), lengths.const_data_ptr<int64_t>() + lengths.numel());
    mask = varlen_mask(seqlens, MaskType::kCausal);
    input = {file.tensor("input_ids"), file.tensor("position_ids")};
    if (!file.contains("pixel_values")) return;
    input.pixel_values = file.tensor("pixel_values");
    const at::Tensor grids = file.tensor("image_grid_thw");
    for (int64_t i = 0; i < grids.size(0); ++i) {
      const int64_t* grid = grids.const_data_ptr<int64_t>() + 3 * i;
      input.image_grids.push_back({grid[0], grid[1], grid[2]});
    }
  }

  SafetensorsFile file;
  std::vector<int64_t> seqlens;
  ModelInput input;
  AttnMaskSpec mask = causal_mask(1, 1);
};

inline SelectionPolicy plain_magi() { return policy_from_attn_implementation("magi", "test"); }

inline std::shared_ptr<const SelectionTable> table_of(const ModelConfig& config, const SelectionPolicy& policy,
                                                      int64_t cp_size = 1) {
  const AttentionUse use{
      .masks = {MaskFamily::kVarlenCausal}, .max_tokens = 1024, .training = true, .cp_size = cp_size};
  return std::make_shared<const SelectionTable>(select(policy, attention_modules(config, use), cpu_backends()));
}

inline std::shared_ptr<const SelectionTable> vlm_table(const SelectionPolicy& policy, int64_t cp_size = 1) {
  return table_of(read_model_config(kVlm), policy, cp_size);
}

}  // namespace attnmux::testing
