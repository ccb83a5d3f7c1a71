#include "models/train/score.h"

#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "attnmux/dispatch.h"
#include "attnmux/error.h"
#include "attnmux/mask_builders.h"
#include "attnmux/mask_family.h"
#include "attnmux/step_context.h"
#include "models/data/documents.h"
#include "models/data/vlm_batch.h"
#include "models/families/families.h"
#include "models/io/atomic_file.h"
#include "models/io/safetensors.h"
#include "models/io/safetensors_header.h"
#include "models/io/tokenizer.h"
#include "models/nn/layer_masks.h"
#include "models/nn/linear_cross_entropy.h"
#include "models/nn/mrope_positions.h"

namespace attnmux {
namespace {

// A tensor of the tokens file as int64, with one dimension or as many as are allowed; undefined where it is missing.
at::Tensor read_integers(const SafetensorsFile& file, const std::string& name, std::vector<size_t> dimensions = {1}) {
  if (!file.contains(name)) return {};
  const SafetensorsInfo info = file.info(name);
  const bool allowed = std::find(dimensions.begin(), dimensions.end(), info.shape.size()) != dimensions.end();
  if (!at::isIntegralType(info.dtype, /*includeBool=*/false) || !allowed) {
    const std::string expected = dimensions == std::vector<size_t>{1}   ? "one dimension"
                                 : dimensions == std::vector<size_t>{2} ? "two dimensions"
                                                                        : "one dimension or two";
    throw Error(ErrorCode::kBadFile, file.path() + ": " + name + " must be int64 with " + expected + ", it is " +
                                         at::toString(info.dtype) + " with " + std::to_string(info.shape.size()));
  }
  return file.tensor(name).to(at::kLong);
}

std::vector<ImageGrid> read_grids(const SafetensorsFile& file) {
  if (file.contains("pixel_values") != file.contains("image_grid_thw")) {
    throw Error(ErrorCode::kBadFile, file.path() +
                                         ": of pixel_values and image_grid_thw it holds one alone; images "
                                         "take both");
  }
  const at::Tensor table = read_integers(file, "image_grid_thw", {2});
  if (!table.defined()) return {};
  if (table.size(1) != 3) {
    throw Error(ErrorCode::kBadFile,
                file.path() + ": image_grid_thw has shape " + c10::str(table.sizes()) + ", expected is [images, 3]");
  }
  std::vector<ImageGrid> grids;
  for (int64_t image = 0; image < table.size(0); ++image) {
    const int64_t* grid = table.const_data_ptr<int64_t>() + 3 * image;
    grids.push_back({grid[0], grid[1], grid[2]});
  }
  return grids;
}

void check_length(const SafetensorsFile& file, const std::string& name, const at::Tensor& tensor, int64_t length) {
  if (tensor.size(-1) == length) return;
  throw Error(ErrorCode::kBadFile, file.path() + ": " + name + " has " + std::to_string(tensor.size(-1)) +
                                       " elements, expected " + std::to_string(length));
}

// Offsets that start at 0, do not fall and end within `tokens`.
void check_offsets(const SafetensorsFile& file, const std::string& name, const at::Tensor& offsets, int64_t tokens) {
  const int64_t* data = offsets.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < offsets.size(0); ++i) {
    const int64_t low = i == 0 ? 0 : data[i - 1];
    const int64_t high = i == 0 ? 0 : tokens;
    if (data[i] >= low && data[i] <= high) continue;
    throw Error(ErrorCode::kBadFile, file.path() + ": " + name + "[" + std::to_string(i) +
                                         "] = " + std::to_string(data[i]) + ", allowed are " + std::to_string(low) +
                                         " to " + std::to_string(high));
  }
}

// Documents of cu_seqlens, placed where cu_seqlens_padded says.
std::vector<Range> document_ranges(const SafetensorsFile& file, const at::Tensor& cu_seqlens, int64_t tokens) {
  if (!cu_seqlens.defined()) return {{0, tokens}};
  check_offsets(file, "cu_seqlens", cu_seqlens, tokens);
  at::Tensor padded = read_integers(file, "cu_seqlens_padded");
  if (padded.defined()) {
    check_length(file, "cu_seqlens_padded", padded, cu_seqlens.size(0));
    check_offsets(file, "cu_seqlens_padded", padded, tokens);
  } else {
    padded = cu_seqlens;
  }
  const int64_t* ends = cu_seqlens.const_data_ptr<int64_t>();
  const int64_t* begins = padded.const_data_ptr<int64_t>();
  std::vector<Range> documents;
  for (int64_t i = 0; i + 1 < cu_seqlens.size(0); ++i) {
    const int64_t length = ends[i + 1] - ends[i];
    if (length > begins[i + 1] - begins[i]) {
      throw Error(ErrorCode::kBadFile, file.path() + ": document " + std::to_string(i) + " has " +
                                           std::to_string(length) + " tokens by cu_seqlens, but room for " +
                                           std::to_string(begins[i + 1] - begins[i]) + " by cu_seqlens_padded");
    }
    documents.push_back({begins[i], begins[i] + length});
  }
  if (begins[padded.size(0) - 1] != tokens) {
    throw Error(ErrorCode::kBadFile, file.path() + ": the documents end at token " +
                                         std::to_string(begins[padded.size(0) - 1]) + ", input_ids has " +
                                         std::to_string(tokens));
  }
  return documents;
}

// Documents and the padding between them, each a segment of its own.
std::vector<int64_t> segments(const std::vector<Range>& documents, int64_t tokens) {
  std::vector<int64_t> seqlens;
  int64_t at = 0;
  for (const Range& document : documents) {
    if (document.begin > at) seqlens.push_back(document.begin - at);
    if (!document.empty()) seqlens.push_back(document.size());
    at = document.end;
  }
  if (at < tokens) seqlens.push_back(tokens - at);
  return seqlens;
}

// Padding is causal, too, so that every row attends something.
AttnMaskSpec causal_documents(const std::vector<Range>& documents, int64_t tokens) {
  return varlen_mask(segments(documents, tokens), MaskType::kCausal);
}

at::Tensor positions_of(const ModelConfig& config, const ScoreInput& input) {
  if (input.position_ids.defined()) return input.position_ids;
  const std::vector<int64_t> seqlens = segments(input.documents, input.input_ids.size(0));
  if (config.vision) return mrope_positions(config, input.input_ids, seqlens, input.image_grids);
  std::vector<at::Tensor> positions;
  for (const int64_t length : seqlens) positions.push_back(at::arange(length, at::kLong));
  return at::cat(positions);
}

at::Tensor shifted_labels(const at::Tensor& input_ids, const std::vector<Range>& documents) {
  at::Tensor labels = at::full_like(input_ids, kIgnoredLabel);
  for (const Range& document : documents) {
    const int64_t predicted = document.size() - 1;
    if (predicted < 1) continue;
    labels.narrow(0, document.begin, predicted).copy_(input_ids.narrow(0, document.begin + 1, predicted));
  }
  return labels;
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

ScoreInput read_score_text(const std::string& model_dir, const std::string& text_file) {
  const std::vector<Document> documents = read_documents(DataKind::kText, {text_file});
  const Tokenizer tokenizer = Tokenizer::from_folder(model_dir);
  const std::vector<int64_t> ids = tokenizer.encode(documents.front().text, {.add_special_tokens = false});
  const auto tokens = static_cast<int64_t>(ids.size());
  const at::Tensor input_ids = at::tensor(ids, at::kLong);
  const std::vector<Range> whole = {{0, tokens}};
  return {input_ids, at::Tensor(), shifted_labels(input_ids, whole), whole, causal_documents(whole, tokens)};
}

ScoreInput read_score_tokens(const std::string& tokens_file) {
  const SafetensorsFile file = SafetensorsFile::open(tokens_file);
  const at::Tensor input_ids = read_integers(file, "input_ids");
  if (!input_ids.defined() || input_ids.size(0) == 0) {
    throw Error(ErrorCode::kBadFile, tokens_file + ": input_ids [tokens] int64 is missing or empty");
  }
  const int64_t tokens = input_ids.size(0);
  const std::vector<Range> documents = document_ranges(file, read_integers(file, "cu_seqlens"), tokens);
  const at::Tensor positions = read_integers(file, "position_ids", {1, 2});
  if (positions.defined()) check_length(file, "position_ids", positions, tokens);
  at::Tensor labels = read_integers(file, "labels");
  if (!labels.defined()) labels = shifted_labels(input_ids, documents);
  check_length(file, "labels", labels, tokens);
  return {input_ids,
          positions,
          labels,
          documents,
          causal_documents(documents, tokens),
          file.contains("pixel_values") ? file.tensor("pixel_values") : at::Tensor(),
          read_grids(file)};
}

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
