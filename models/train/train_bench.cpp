#include "models/train/train_bench.h"

#include <ATen/core/Generator.h>

#include <map>

#include "attnmux/error.h"
#include "attnmux/mask_builders.h"
#include "models/families/families.h"
#include "models/nn/layer_masks.h"

namespace attnmux {
namespace {

DocumentPacker::Documents random_documents(int64_t count, int64_t length, int64_t vocab_size) {
  const at::Tensor ids =
      at::randint(vocab_size, {count, length}, at::detail::createCPUGenerator(/*seed=*/1), at::kLong);
  auto documents = std::make_shared<std::vector<TokenizedDocument>>();
  for (int64_t i = 0; i < count; ++i) {
    const int64_t* row = ids.const_data_ptr<int64_t>() + i * length;
    documents->push_back({.ids = {row, row + length}});
  }
  return documents;
}

// Over all layers.
double attended_pairs(const ModelConfig& config, const AttnMaskSpec& batch) {
  std::map<std::string, double> areas;
  for (const KeyedMask& entry : layer_masks(config, batch)) areas[entry.key] = static_cast<double>(entry.mask.area());
  double pairs = 0;
  for (const LayerType type : config.layer_types) pairs += areas.at(mask_key(type));
  return pairs;
}

}  // namespace

TrainBench::TrainBench(const std::string& model_dir, const SelectionPolicy& policy, const PluginRegistry& registry,
                       const TrainBenchOptions& options) {
  const bool bf16 = options.dtype == "bf16";
  if (!bf16 && options.dtype != "fp32") {
    throw Error(ErrorCode::kInvalidArgument, "dtype " + options.dtype + "; allowed are fp32 and bf16");
  }
  if (options.documents < 1 || options.seq_len / options.documents < 2) {
    throw Error(ErrorCode::kInvalidArgument, std::to_string(options.documents) + " documents in " +
                                                 std::to_string(options.seq_len) +
                                                 " tokens; each takes at least 2 tokens");
  }
  const ModelConfig config = read_model_config(model_dir);
  const AttentionUse use{.masks = {MaskFamily::kVarlenCausal},
                         .empty_rows = false,
                         .dtype = bf16 ? DType::kBFloat16 : DType::kFloat32,
                         .device = DeviceKind::kCpu,
                         .max_tokens = options.seq_len,
                         .training = true};
  auto table = std::make_shared<const SelectionTable>(select(policy, attention_modules(config, use), registry));
  model_ = load_causal_lm(model_dir, {.dtype = bf16 ? at::kBFloat16 : at::kFloat, .training = true});
  optimizer_ = std::make_unique<AdamW>(model_->parameters(), AdamWOptions{});
  const int64_t length = options.seq_len / options.documents;
  packer_ = std::make_unique<DocumentPacker>(random_documents(options.documents, length, config.vocab_size),
                                             PackingOptions{.seq_len = length * options.documents, .shuffle = false});
  const auto tokens = static_cast<double>(length * options.documents);
  const AttnMaskSpec mask = varlen_mask(std::vector<int64_t>(options.documents, length), MaskType::kCausal);
  flops_ = 6.0 * static_cast<double>(model_->parameters().element_count()) * tokens +
           12.0 * attended_pairs(config, mask) * static_cast<double>(config.num_attention_heads * config.head_dim);
  if (!config.tie_word_embeddings) flops_ -= 6.0 * static_cast<double>(model_->lm_head().numel()) * tokens;
  state_ =
      std::make_unique<TrainState>(TrainState{.run = {.model = *model_,
                                                      .mesh = single_rank_mesh(),
                                                      .table = std::move(table),
                                                      .cache = std::make_shared<PreparedCache>(),
                                                      .plans = std::make_shared<PlanCache>(),
                                                      .sharding = {}},
                                              .optimizer = *optimizer_,
                                              .data = *packer_,
                                              .schedule = LrSchedule{.peak = 1e-5, .warmup_steps = 0, .steps = 1 << 30},
                                              .grad_clip = 1.0,
                                              .activation_checkpointing = options.activation_checkpointing});
}

double TrainBench::step() {
  last_ = train_step(*state_, last_.step + 1);
  return static_cast<double>(last_.tokens) / last_.tokens_per_s;
}

}  // namespace attnmux
