#include "models/data/packing.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "attnmux/error.h"
#include "attnmux/mask_builders.h"
#include "models/nn/linear_cross_entropy.h"

namespace attnmux {
namespace {

// splitmix64; std::shuffle and the standard's distributions differ from library to library.
uint64_t next_random(uint64_t& state) {
  uint64_t x = state += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

void shuffle(std::vector<int64_t>& order, uint64_t seed, int64_t epoch) {
  uint64_t state = seed;
  state = next_random(state) ^ static_cast<uint64_t>(epoch);
  for (size_t i = order.size(); i > 1; --i) {
    // The high half of a 128-bit product: uniform to within 2^-64 * i.
    const auto j = static_cast<size_t>((static_cast<unsigned __int128>(next_random(state)) * i) >> 64);
    std::swap(order[i - 1], order[j]);
  }
}

at::Tensor to_tensor(const std::vector<int64_t>& values) { return at::tensor(values, at::kLong); }

}  // namespace

// One sequence in the making.
struct DocumentPacker::Segments {
  std::vector<int64_t> ids, positions, labels, seqlens;
  std::vector<DocumentImage> images;
  int64_t valid = 0;

  int64_t size() const { return static_cast<int64_t>(ids.size()); }

  void append(const TokenizedDocument& document, int64_t begin, int64_t end) {
    const int64_t last = std::ssize(document.ids) - 1;
    for (int64_t i = begin; i < end; ++i) {
      const bool learned = i < last && (document.is_label.empty() || document.is_label[i + 1]);
      ids.push_back(document.ids[i]);
      positions.push_back(i - begin);
      labels.push_back(learned ? document.ids[i + 1] : kIgnoredLabel);
      valid += learned;
    }
    seqlens.push_back(end - begin);
    images.insert(images.end(), document.images.begin(), document.images.end());
  }

  PackedBatch finish() && {
    AttnMaskSpec mask = varlen_mask(seqlens, MaskType::kCausal);
    return {to_tensor(ids), to_tensor(positions), to_tensor(labels), std::move(seqlens),
            valid,          std::move(mask),      std::move(images)};
  }
};

DocumentPacker::DocumentPacker(Documents documents, const PackingOptions& options)
    : documents_(std::move(documents)), options_(options) {
  if (options_.seq_len < 2) {
    throw Error(ErrorCode::kInvalidArgument,
                "seq_len = " + std::to_string(options_.seq_len) + "; a sequence takes at least 2 tokens");
  }
  if (documents_->empty()) throw Error(ErrorCode::kInvalidArgument, "no documents to pack");
  for (const TokenizedDocument& document : *documents_) {
    if (document.divisible || std::ssize(document.ids) <= options_.seq_len) continue;
    throw Error(ErrorCode::kInvalidArgument,
                "a document of " + std::to_string(document.ids.size()) +
                    " tokens that may not be cut, seq_len = " + std::to_string(options_.seq_len));
  }
  const int64_t tokens = count_tokens(*documents_);
  if (options_.repeat && options_.packing && tokens < options_.seq_len) {
    throw Error(ErrorCode::kInvalidArgument, "the text is shorter than one sequence: " + std::to_string(tokens) +
                                                 " tokens, seq_len = " + std::to_string(options_.seq_len) +
                                                 "; give more text or lower seq_len");
  }
  start_epoch(0);
}

void DocumentPacker::start_epoch(int64_t epoch) {
  order_.resize(documents_->size());
  std::iota(order_.begin(), order_.end(), 0);
  if (options_.shuffle) shuffle(order_, options_.seed, epoch);
  position_ = {.epoch = epoch, .document = 0, .token = 0};
}

void DocumentPacker::seek(const DataPosition& position) {
  const auto count = static_cast<int64_t>(documents_->size());
  if (position.epoch < 0 || position.document < 0 || position.document > count || position.token < 0) {
    throw Error(ErrorCode::kInvalidArgument, "data position: epoch " + std::to_string(position.epoch) + ", document " +
                                                 std::to_string(position.document) + " of " + std::to_string(count) +
                                                 ", token " + std::to_string(position.token) + " does not exist");
  }
  start_epoch(position.epoch);
  const int64_t length = position.document == count ? 1 : std::ssize((*documents_)[order_[position.document]].ids);
  if (position.token >= length) {
    throw Error(ErrorCode::kInvalidArgument, "data position: token " + std::to_string(position.token) +
                                                 " of a document of " + std::to_string(length) +
                                                 "; the data is not what it was");
  }
  position_ = position;
}

// Starts the next epoch where there is one.
bool DocumentPacker::at_end() {
  if (position_.document < static_cast<int64_t>(documents_->size())) return false;
  if (!options_.repeat) return true;
  start_epoch(position_.epoch + 1);
  return false;
}

void DocumentPacker::fill(Segments& segments) {
  while (segments.size() < options_.seq_len && !at_end()) {
    const TokenizedDocument& document = (*documents_)[order_[position_.document]];
    const int64_t length = std::ssize(document.ids);
    if (!document.divisible && segments.size() + length > options_.seq_len) return;
    const int64_t end = std::min(length, position_.token + options_.seq_len - segments.size());
    segments.append(document, position_.token, end);
    position_.token = end;
    if (end == length) position_ = {.epoch = position_.epoch, .document = position_.document + 1, .token = 0};
    if (!options_.packing) return;
  }
}

std::optional<PackedBatch> DocumentPacker::next() {
  while (!at_end()) {
    Segments segments;
    fill(segments);
    // A piece that is a lone EOS predicts nothing; it occurs without packing, and at the end of a pass.
    if (segments.valid > 0) return std::move(segments).finish();
  }
  return std::nullopt;
}

}  // namespace attnmux
