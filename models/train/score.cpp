#include "models/train/score.h"

#include <c10/core/GradMode.h>

#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "attnmux/dispatch.h"
#include "attnmux/error.h"
#include "attnmux/mask_family.h"
#include "attnmux/step_context.h"
#include "models/data/vlm_batch.h"
#include "models/families/families.h"
#include "models/io/atomic_file.h"
#include "models/io/safetensors_header.h"
#include "models/nn/layer_masks.h"
#include "models/nn/linear_cross_entropy.h"
#include "models/nn/mrope_positions.h"

namespace attnmux {
namespace {

at::Tensor positions_of(const ModelConfig& config, const ScoreInput& input) {
  if (input.position_ids.defined()) return input.position_ids;
  const std::vector<int64_t> seqlens = input.seqlens();
  if (config.vision) return mrope_positions(config, input.input_ids, seqlens, input.image_grids);
  std::vector<at::Tensor> positions;
  for (const int64_t length : seqlens) positions.push_back(at::arange(length, at::kLong));
  return at::cat(positions);
}

// logits [tokens, vocab] fp32 into a safetensors file as they come.
class LogitsFile {
 public:
  LogitsFile(const std::string& path, int64_t tokens, int64_t vocab) : file_(path) {
    std::vector<SafetensorsEntry> entries = {
        {.name = "logits", .dtype = SafetensorsDType::kF32, .shape = {tokens, vocab}}};
    file_.write(format_safetensors_header(entries, {}));
  }
  void append(const at::Tensor& rows) {
    const at::Tensor packed = rows.to(at::kFloat).contiguous();
    file_.write(packed.const_data_ptr(), packed.nbytes());
  }
  void commit() { file_.commit(); }

 private:
  AtomicFile file_;
};

DType request_dtype(at::ScalarType dtype) {
  if (dtype == at::kFloat) return DType::kFloat32;
  if (dtype == at::kBFloat16) return DType::kBFloat16;
  if (dtype == at::kDouble) return DType::kFloat64;
  throw Error(ErrorCode::kInvalidArgument,
              std::string("score: dtype ") + at::toString(dtype) + "; allowed are fp32, bf16 and fp64");
}

bool has_empty_rows(const AttnMaskSpec& mask) {
  for (int64_t row = 0; row < mask.total_q(); ++row) {
    if (mask.keys_of_row(row).empty()) return true;
  }
  return false;
}

SelectionTable choose_backends(const ModelConfig& config, const AttnMaskSpec& mask, const ScoreOptions& options,
                               const SelectionPolicy& policy, const PluginRegistry& registry) {
  const AttentionUse use{.masks = {classify(mask)},
                         .empty_rows = has_empty_rows(mask),
                         .dtype = request_dtype(options.dtype),
                         .device = DeviceKind::kCpu,
                         .max_tokens = mask.total_q(),
                         .training = false,
                         .cp_size = options.cp};
  return select(policy, attention_modules(config, use), registry);
}

void check_ids(const at::Tensor& ids, int64_t vocab) {
  const at::Tensor wrong = ids.ge(vocab).logical_or(ids.lt(0)).nonzero();
  if (wrong.numel() == 0) return;
  const int64_t index = wrong[0].item<int64_t>();
  throw Error(ErrorCode::kInvalidArgument, "input_ids[" + std::to_string(index) +
                                               "] = " + std::to_string(ids[index].item<int64_t>()) +
                                               "; the model's vocabulary has ids 0 to " + std::to_string(vocab - 1));
}

DocumentScore score_document(const Range& document, const at::Tensor& losses, const at::Tensor& labels) {
  const at::Tensor predicted = labels.narrow(0, document.begin, document.size()).ne(kIgnoredLabel);
  const auto count = predicted.sum().item<int64_t>();
  DocumentScore result{.tokens = document.size(), .loss = std::nullopt};
  if (count > 0) {
    const auto sum = losses.narrow(0, document.begin, document.size()).sum(at::kDouble).item<double>();
    result.loss = sum / static_cast<double>(count);
  }
  return result;
}

// [tokens, hidden] in the input's order, computed by as many ranks as asked for.
at::Tensor hidden_states(const CausalLm& model, const ScoreInput& input, const AttnMaskSpec& mask,
                         const std::shared_ptr<const SelectionTable>& table, const ScoreOptions& options,
                         ScoreProgress& progress) {
  at::Tensor hidden;
  PlanCache plans;
  const VlmSequence sequence{
      input.input_ids, positions_of(model.config(), input), input.labels, mask, input.pixel_values, input.image_grids};
  run_threads_group(static_cast<int32_t>(options.cp), {}, [&](CpGroup& group) {
    StepContext step(table, std::make_shared<PreparedCache>(), {.training = false});
    const LlmBatch share = prepare_vlm_batch(model, sequence, group, step,
                                             {.sharding = {.dispatch = {.chunk_size = options.chunk_size}}}, plans);
    arm_layers(step, model.config(), share.plan);
    const ForwardOptions observed{.observe = group.rank() == 0 ? progress.layers() : ModuleObserver{}};
    const at::Tensor own = model.forward(share.input(), step, observed);
    step.finish();
    const at::Tensor whole = undispatch(own, share.plan.plan().dispatch(), group);
    if (group.rank() == 0) hidden = whole;
  });
  return hidden;
}

}  // namespace

ScoreResult score(const std::string& model_dir, const ScoreInput& input, const SelectionPolicy& policy,
                  const PluginRegistry& registry, const ScoreOptions& options) {
  if (options.cp < 1) {
    throw Error(ErrorCode::kInvalidArgument, "score on " + std::to_string(options.cp) + " ranks; it takes 1 or more");
  }
  const at::NoGradGuard no_grad;
  const int64_t tokens = input.input_ids.size(0);
  const AttnMaskSpec mask = options.mask.value_or(input.mask);
  if (mask.total_q() != tokens || mask.total_k() != tokens) {
    throw Error(ErrorCode::kInvalidArgument, "the mask is " + std::to_string(mask.total_q()) + " x " +
                                                 std::to_string(mask.total_k()) + ", the input has " +
                                                 std::to_string(tokens) + " tokens");
  }
  const ModelConfig config = read_model_config(model_dir);
  check_ids(input.input_ids, config.vocab_size);
  const auto predicted = input.labels.ne(kIgnoredLabel).sum().item<int64_t>();
  if (predicted == 0) {
    throw Error(ErrorCode::kInvalidArgument, "the input predicts nothing: a document takes at least 2 tokens");
  }
  const auto table = std::make_shared<const SelectionTable>(choose_backends(config, mask, options, policy, registry));

  const std::unique_ptr<CausalLm> model = load_causal_lm(model_dir, {.dtype = options.dtype});
  ScoreProgress progress(config, tokens, options.on_progress);
  const at::Tensor hidden = hidden_states(*model, input, mask, table, options, progress);

  std::optional<LogitsFile> logits;
  if (!options.logits_file.empty()) logits.emplace(options.logits_file, tokens, config.vocab_size);
  const at::Tensor losses =
      token_losses(hidden, model->lm_head(), input.labels, [&](int64_t first_row, const at::Tensor& rows) {
        if (logits) logits->append(rows);
        progress.rows_done(first_row + rows.size(0));
      });
  if (logits) logits->commit();

  ScoreResult result{.tokens = tokens, .loss = 0, .documents = {}, .token_losses = losses};
  result.loss = losses.sum(at::kDouble).item<double>() / static_cast<double>(predicted);
  for (const Range& document : input.documents) {
    result.documents.push_back(score_document(document, losses, input.labels));
  }
  return result;
}

std::string to_json(const ScoreResult& result) {
  nlohmann::ordered_json object;
  object["tokens"] = result.tokens;
  object["loss"] = result.loss;
  object["perplexity"] = std::exp(result.loss);
  object["documents"] = nlohmann::ordered_json::array();
  for (const DocumentScore& document : result.documents) {
    nlohmann::ordered_json entry;
    entry["tokens"] = document.tokens;
    entry["loss"] = document.loss ? nlohmann::ordered_json(*document.loss) : nlohmann::ordered_json(nullptr);
    object["documents"].push_back(std::move(entry));
  }
  return object.dump(2);
}

}  // namespace attnmux
