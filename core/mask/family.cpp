#include <algorithm>

#include "attnmux/mask_family.h"
#include "band.h"

namespace attnmux {
namespace {

// Queries and keys at which a new document may begin: a row whose keys all lie behind those of the row before it.
// Rows without keys go to the document behind them, as the first rows of a causal document with few keys.
void find_documents(const AttnMaskSpec& mask, PackedDocuments* documents) {
  documents->cu_seqlens_q = {0};
  documents->cu_seqlens_k = {0};
  Range last_keys;
  int64_t last_row = -1;
  const auto begin_document = [&](int64_t key) {
    documents->cu_seqlens_q.push_back(last_row + 1);
    documents->cu_seqlens_k.push_back(key);
  };
  for (const AttnSlice& slice : mask.disjoint_slices()) {
    const Range keys = keys_of_row(slice, slice.q.begin);
    if (last_row >= 0 && keys.begin >= last_keys.end) begin_document(keys.begin);
    last_row = slice.q.begin;
    last_keys = keys;
    const bool one_key_wide_diagonal = slice.type == MaskType::kBiCausal && keys.size() == 1;
    for (; one_key_wide_diagonal && last_row + 1 < slice.q.end; ++last_row)
      begin_document(keys.begin + last_row + 1 - slice.q.begin);
    last_row = slice.q.end - 1;
    last_keys = keys_of_row(slice, last_row);
  }
  if (last_row + 1 < mask.total_q() && last_row >= 0) begin_document(mask.total_k());
  documents->cu_seqlens_q.push_back(mask.total_q());
  documents->cu_seqlens_k.push_back(mask.total_k());
}

// How far the mask reaches to either side of its documents' diagonals.
SlidingWindow measure_window(const AttnMaskSpec& mask, const PackedDocuments& documents) {
  SlidingWindow window{.left = 0, .right = 0, .sink_tokens = 0};
  size_t document = 0;
  for (const AttnSlice& slice : mask.disjoint_slices()) {
    for (const int64_t row : {slice.q.begin, slice.q.end - 1}) {
      while (documents.cu_seqlens_q[document + 1] <= row) ++document;
      const int64_t diagonal = row + documents.cu_seqlens_k[document + 1] - documents.cu_seqlens_q[document + 1];
      const Range keys = keys_of_row(slice, row);
      window.left = std::max(window.left, diagonal - keys.begin);
      window.right = std::max(window.right, keys.end - 1 - diagonal);
    }
  }
  return window;
}

bool is_packing(const AttnMaskSpec& mask, const PackedDocuments& documents, const SlidingWindow& window) {
  std::vector<AttnSlice> slices;
  for (size_t i = 0; i + 1 < documents.cu_seqlens_q.size(); ++i) {
    append_band({documents.cu_seqlens_q[i], documents.cu_seqlens_q[i + 1]},
                {documents.cu_seqlens_k[i], documents.cu_seqlens_k[i + 1]}, window, &slices);
  }
  return AttnMaskSpec(std::move(slices), mask.total_q(), mask.total_k()) == mask;
}

bool one_key_range_per_row(const AttnMaskSpec& mask) {
  const std::vector<AttnSlice>& slices = mask.disjoint_slices();
  return std::adjacent_find(slices.begin(), slices.end(),
                            [](const AttnSlice& a, const AttnSlice& b) { return a.q.end > b.q.begin; }) == slices.end();
}

}  // namespace

std::string_view to_string(MaskFamily family) {
  switch (family) {
    case MaskFamily::kFull: return "full";
    case MaskFamily::kCausal: return "causal";
    case MaskFamily::kVarlenFull: return "varlen_full";
    case MaskFamily::kVarlenCausal: return "varlen_causal";
    case MaskFamily::kSlidingWindow: return "sliding_window";
    case MaskFamily::kArbitrary: return "arbitrary";
  }
  return "arbitrary";
}

bool contains(MaskFamily outer, MaskFamily inner) {
  if (outer == inner) return true;
  switch (outer) {
    case MaskFamily::kFull:
    case MaskFamily::kCausal: return false;
    case MaskFamily::kVarlenFull: return inner == MaskFamily::kFull;
    case MaskFamily::kVarlenCausal: return inner == MaskFamily::kCausal;
    case MaskFamily::kSlidingWindow: return inner != MaskFamily::kArbitrary;
    case MaskFamily::kArbitrary: return true;
  }
  return false;
}

std::optional<PackedDocuments> packed_documents(const AttnMaskSpec& mask) {
  if (!one_key_range_per_row(mask)) return std::nullopt;
  PackedDocuments single{.family = MaskFamily::kFull,
                         .cu_seqlens_q = {0, mask.total_q()},
                         .cu_seqlens_k = {0, mask.total_k()},
                         .left = -1,
                         .right = -1};
  if (is_packing(mask, single, {.left = -1, .right = -1})) return single;
  single.family = MaskFamily::kCausal;
  single.right = 0;
  if (is_packing(mask, single, {.left = -1, .right = 0})) return single;

  PackedDocuments documents;
  find_documents(mask, &documents);
  const SlidingWindow window = measure_window(mask, documents);
  for (const auto& [family, reach] : {std::pair{MaskFamily::kVarlenFull, SlidingWindow{.left = -1, .right = -1}},
                                      std::pair{MaskFamily::kVarlenCausal, SlidingWindow{.left = -1, .right = 0}},
                                      std::pair{MaskFamily::kSlidingWindow, window}}) {
    if (!is_packing(mask, documents, reach)) continue;
    documents.family = family;
    documents.left = reach.left;
    documents.right = reach.right;
    return documents;
  }
  return std::nullopt;
}

MaskFamily classify(const AttnMaskSpec& mask) {
  const std::optional<PackedDocuments> documents = packed_documents(mask);
  return documents ? documents->family : MaskFamily::kArbitrary;
}

bool MaskFamilySet::covers(MaskFamily family) const {
  for (unsigned i = 0; i <= static_cast<unsigned>(MaskFamily::kArbitrary); ++i) {
    const auto member = static_cast<MaskFamily>(i);
    if (has(member) && contains(member, family)) return true;
  }
  return false;
}

std::string MaskFamilySet::to_string() const {
  std::string text;
  for (unsigned i = 0; i <= static_cast<unsigned>(MaskFamily::kArbitrary); ++i) {
    const auto member = static_cast<MaskFamily>(i);
    if (!has(member)) continue;
    if (!text.empty()) text += ", ";
    text += attnmux::to_string(member);
  }
  return text;
}

}  // namespace attnmux
