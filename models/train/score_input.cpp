#include "models/train/score_input.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "attnmux/error.h"
#include "attnmux/mask_builders.h"
#include "attnmux/spelling.h"
#include "models/data/documents.h"
#include "models/io/safetensors.h"
#include "models/io/tokenizer.h"
#include "models/nn/linear_cross_entropy.h"

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
    throw Error(ErrorCode::kBadFile, file.path() + ": " + name + " must be I64 with " + expected + ", it is " +
                                         std::string(info.dtype_name) + " with " + std::to_string(info.shape.size()));
  }
  return file.tensor(name).to(at::kLong);
}

// A tensor that is not read must not be left out in silence: a misspelt one would change what is scored.
void check_names(const SafetensorsFile& file) {
  static const std::vector<std::string> known = {"input_ids", "cu_seqlens",   "cu_seqlens_padded", "position_ids",
                                                 "labels",    "pixel_values", "image_grid_thw"};
  for (const std::string& name : file.names()) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    throw Error(ErrorCode::kBadFile, file.path() + ": " + unknown_word("tensor", name, known));
  }
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
  at::Tensor padded = read_integers(file, "cu_seqlens_padded");
  if (!cu_seqlens.defined()) {
    if (!padded.defined()) return {{0, tokens}};
    throw Error(ErrorCode::kBadFile, file.path() +
                                         ": cu_seqlens_padded without cu_seqlens; add cu_seqlens [documents + 1], the "
                                         "documents' ends without padding, or remove cu_seqlens_padded");
  }
  if (cu_seqlens.size(0) == 0) {
    throw Error(
        ErrorCode::kBadFile,
        file.path() +
            ": cu_seqlens is empty; expected is [documents + 1] that begins with 0, then each document's end; without "
            "cu_seqlens all tokens are one document");
  }
  check_offsets(file, "cu_seqlens", cu_seqlens, tokens);
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

at::Tensor shifted_labels(const at::Tensor& input_ids, const std::vector<Range>& documents) {
  at::Tensor labels = at::full_like(input_ids, kIgnoredLabel);
  for (const Range& document : documents) {
    const int64_t predicted = document.size() - 1;
    if (predicted < 1) continue;
    labels.narrow(0, document.begin, predicted).copy_(input_ids.narrow(0, document.begin + 1, predicted));
  }
  return labels;
}

}  // namespace

std::vector<int64_t> ScoreInput::seqlens() const { return segments(documents, input_ids.size(0)); }

ScoreInput read_score_text(const std::string& model_dir, const std::string& text_file) {
  const std::vector<Document> documents = read_documents(DataKind::kText, {text_file});
  const Tokenizer tokenizer = Tokenizer::from_folder(model_dir);
  const std::vector<int64_t> ids = tokenizer.encode(documents.front().text, {.add_special_tokens = false});
  const auto tokens = static_cast<int64_t>(ids.size());
  const at::Tensor input_ids = at::tensor(ids, at::kLong);
  const std::vector<Range> whole = {{0, tokens}};
  return {.input_ids = input_ids,
          .position_ids = at::Tensor(),
          .labels = shifted_labels(input_ids, whole),
          .documents = whole,
          .mask = causal_documents(whole, tokens),
          .file = text_file};
}

ScoreInput read_score_tokens(const std::string& tokens_file) {
  const SafetensorsFile file = SafetensorsFile::open(tokens_file);
  check_names(file);
  const at::Tensor input_ids = read_integers(file, "input_ids");
  if (!input_ids.defined() || input_ids.size(0) == 0) {
    throw Error(ErrorCode::kBadFile, tokens_file + ": input_ids [tokens] int64 is missing or empty; add it");
  }
  const int64_t tokens = input_ids.size(0);
  const std::vector<Range> documents = document_ranges(file, read_integers(file, "cu_seqlens"), tokens);
  const at::Tensor positions = read_integers(file, "position_ids", {1, 2});
  if (positions.defined()) check_length(file, "position_ids", positions, tokens);
  at::Tensor labels = read_integers(file, "labels");
  if (!labels.defined()) labels = shifted_labels(input_ids, documents);
  check_length(file, "labels", labels, tokens);
  return {.input_ids = input_ids,
          .position_ids = positions,
          .labels = labels,
          .documents = documents,
          .mask = causal_documents(documents, tokens),
          .pixel_values = file.contains("pixel_values") ? file.tensor("pixel_values") : at::Tensor(),
          .image_grids = read_grids(file),
          .file = tokens_file};
}

}  // namespace attnmux
