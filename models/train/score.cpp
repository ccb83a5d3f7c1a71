#include "models/train/score.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <functional>
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
#include "models/nn/check_input.h"
#include "models/nn/layer_masks.h"
#include "models/nn/linear_cross_entropy.h"
#include "models/nn/mrope_positions.h"
#include "models/train/non_finite.h"

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

[[noreturn]] void refuse(const ScoreInput& input, const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, input.file + ": " + what);
}

std::optional<int64_t> first_true(const at::Tensor& flags) {
  const at::Tensor indices = flags.nonzero();
  if (indices.numel() == 0) return std::nullopt;
  return indices[0].item<int64_t>();
}

std::string element_text(const std::string& name, const at::Tensor& tensor, int64_t index) {
  return name + "[" + std::to_string(index) + "] = " + std::to_string(tensor[index].item<int64_t>());
}

void check_vocabulary(const ScoreInput& input, int64_t vocab) {
  const at::Tensor &ids = input.input_ids, &labels = input.labels;
  const std::string allowed = "the model's vocabulary has ids 0 to " + std::to_string(vocab - 1);
  if (const auto index = first_true(ids.ge(vocab).logical_or(ids.lt(0)))) {
    refuse(input, element_text("input_ids", ids, *index) + "; " + allowed + "; give ids of this model's tokenizer");
  }
  if (const auto index = first_true(labels.ge(vocab).logical_or(labels.lt(0)).logical_and(labels.ne(kIgnoredLabel)))) {
    refuse(input, element_text("labels", labels, *index) + "; " + allowed + ", and " + std::to_string(kIgnoredLabel) +
                      " is a token that predicts nothing");
  }
}

void check_mask(const ScoreInput& input, const AttnMaskSpec& mask) {
  const int64_t tokens = input.input_ids.size(0);
  if (mask.total_q() == tokens && mask.total_k() == tokens) return;
  const std::string length = std::to_string(tokens);
  refuse(input, "the mask is " + std::to_string(mask.total_q()) + " x " + std::to_string(mask.total_k()) +
                    ", the input has " + length + " tokens; give a mask of that length, e.g. --mask causal:" + length);
}

// Returns how many tokens are predicted.
int64_t count_predicted(const ScoreInput& input) {
  const auto predicted = input.labels.ne(kIgnoredLabel).sum().item<int64_t>();
  if (predicted > 0) return predicted;
  const bool some_are_long = std::any_of(input.documents.begin(), input.documents.end(),
                                         [](const Range& document) { return document.size() > 1; });
  refuse(input, some_are_long ? "it predicts nothing: all labels are -100; give a token its label, or leave labels out"
                              : "it predicts nothing: no document has 2 tokens or more; give longer documents");
}

// What the model is run on, if it fits the model.
VlmSequence sequence_of(const ModelConfig& config, const ScoreInput& input, const AttnMaskSpec& mask) {
  try {
    const at::Tensor positions = positions_of(config, input);
    check_input(config, {.input_ids = input.input_ids,
                         .position_ids = positions,
                         .pixel_values = input.pixel_values,
                         .image_grids = input.image_grids});
    return {.input_ids = input.input_ids,
            .position_ids = positions,
            .labels = input.labels,
            .mask = mask,
            .pixel_values = input.pixel_values,
            .image_grids = input.image_grids};
  } catch (const Error& error) {
    throw Error(error.code(), input.file + ": " + error.what());
  }
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

struct ForwardRun {
  std::function<ModuleObserver(int32_t rank)> observer;
  bool share_images = true;  // otherwise every rank runs all images, and sees the same modules
};

// [tokens, hidden] in the input's order, computed by as many ranks as asked for.
at::Tensor hidden_states(const CausalLm& model, const VlmSequence& sequence,
                         const std::shared_ptr<const SelectionTable>& table, const ScoreOptions& options,
                         const ForwardRun& run) {
  at::Tensor hidden;
  PlanCache plans;
  run_threads_group(options.cp, {}, [&](CpGroup& group) {
    StepContext step(table, std::make_shared<PreparedCache>(), {.training = false});
    const ForwardOptions observed{.observe = run.observer(group.rank())};
    const LlmBatch share = prepare_vlm_batch(model, sequence, group, step,
                                             {.sharding = {.dispatch = {.chunk_size = options.chunk_size}},
                                              .share_images = run.share_images,
                                              .forward = observed},
                                             plans);
    arm_layers(step, model.config(), share.plan);
    const at::Tensor own = model.forward(share.input(), step, observed);
    step.finish();
    const at::Tensor whole = undispatch(own, share.plan.plan().dispatch(), group);
    if (group.rank() == 0) hidden = whole;
  });
  return hidden;
}

// Of all ranks' outputs the earliest that is not finite.
std::string first_non_finite_module(const std::vector<NonFiniteWatch>& watches) {
  const NonFiniteWatch* earliest = nullptr;
  for (const NonFiniteWatch& watch : watches) {
    if (watch.first() && (earliest == nullptr || *watch.first() < *earliest->first())) earliest = &watch;
  }
  return earliest == nullptr ? kOutputModule : earliest->module(*earliest->first());
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
  check_mask(input, mask);
  const ModelConfig config = read_model_config(model_dir);
  check_vocabulary(input, config.vocab_size);
  const int64_t predicted = count_predicted(input);
  const VlmSequence sequence = sequence_of(config, input, mask);
  const auto table = std::make_shared<const SelectionTable>(choose_backends(config, mask, options, policy, registry));

  const std::unique_ptr<CausalLm> model = load_causal_lm(model_dir, {.dtype = options.dtype});
  ScoreProgress progress(config, tokens, options.on_progress);
  const at::Tensor hidden =
      hidden_states(*model, sequence, table, options,
                    {.observer = [&](int32_t rank) { return rank == 0 ? progress.layers() : ModuleObserver{}; }});

  std::optional<LogitsFile> logits;
  if (!options.logits_file.empty()) logits.emplace(options.logits_file, tokens, config.vocab_size);
  const at::Tensor losses =
      token_losses(hidden, model->lm_head(), input.labels, [&](int64_t first_row, const at::Tensor& rows) {
        if (logits) logits->append(rows);
        progress.rows_done(first_row + rows.size(0));
      });
  const double loss = losses.sum(at::kDouble).item<double>() / static_cast<double>(predicted);
  // Tokens that predict nothing have no loss, but logits.
  if (!std::isfinite(loss) || !at::isfinite(hidden).all().item<bool>()) {
    std::vector<NonFiniteWatch> watches(options.cp);
    hidden_states(*model, sequence, table, options,
                  {.observer = [&](int32_t rank) { return watches[rank].observer(); }, .share_images = false});
    throw Error(
        ErrorCode::kNonFinite,
        input.file + ": the loss is " + std::to_string(loss) + "; " +
            first_non_finite_text(model->parameters(), first_non_finite_module(watches), "") +
            "\nNothing was written. Usual causes: weights that were broken before, or numbers that --dtype does "
            "not hold; try --dtype fp32.");
  }
  if (logits) logits->commit();

  ScoreResult result{.tokens = tokens, .loss = loss, .documents = {}, .token_losses = losses};
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
  return object.dump();
}

}  // namespace attnmux
