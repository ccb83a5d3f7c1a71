#include <algorithm>
#include <limits>
#include <string>

#include "attnmux/error.h"
#include "attnmux/mask_builders.h"
#include "band.h"
#include "disjoint.h"

namespace attnmux {
namespace {

[[noreturn]] void refuse(const std::string& text) { throw Error(ErrorCode::kInvalidArgument, text); }

int64_t checked_length(const char* name, size_t index, int64_t length) {
  if (length < 0) {
    refuse(std::string(name) + "[" + std::to_string(index) + "] = " + std::to_string(length) + " is negative");
  }
  return length;
}

// `length` more tokens behind `begin`; refuses where the total leaves what a mask can have.
Range next_range(const char* name, size_t index, int64_t begin, int64_t length) {
  checked_length(name, index, length);
  if (length > std::numeric_limits<int32_t>::max() - begin) {
    refuse("the lengths up to " + std::string(name) + "[" + std::to_string(index) + "] = " + std::to_string(length) +
           " add up to more than 2147483647 tokens, the most a mask can have");
  }
  return {begin, begin + length};
}

AttnMaskSpec one_slice(int64_t total_q, int64_t total_k, MaskType type) {
  return AttnMaskSpec({{.q = {0, total_q}, .k = {0, total_k}, .type = type}}, total_q, total_k);
}

}  // namespace

AttnMaskSpec full_mask(int64_t total_q, int64_t total_k) {
  checked_length("total_q, total_k", 0, total_q);
  checked_length("total_q, total_k", 1, total_k);
  return one_slice(total_q, total_k, MaskType::kFull);
}

AttnMaskSpec causal_mask(int64_t total_q, int64_t total_k) {
  checked_length("total_q, total_k", 0, total_q);
  checked_length("total_q, total_k", 1, total_k);
  return one_slice(total_q, total_k, MaskType::kCausal);
}

AttnMaskSpec varlen_mask(const std::vector<int64_t>& seqlens, MaskType type) {
  if (type != MaskType::kFull && type != MaskType::kCausal) {
    refuse("varlen_mask takes kFull or kCausal, not type " + std::to_string(static_cast<int>(type)));
  }
  std::vector<AttnSlice> slices;
  int64_t total = 0;
  for (size_t i = 0; i < seqlens.size(); ++i) {
    const Range document = next_range("seqlens", i, total, seqlens[i]);
    slices.push_back({.q = document, .k = document, .type = type});
    total = document.end;
  }
  return AttnMaskSpec(std::move(slices), total, total);
}

AttnMaskSpec sliding_window_mask(const std::vector<int64_t>& seqlens, const SlidingWindow& window) {
  for (const auto& [name, side] : {std::pair{"left", window.left}, std::pair{"right", window.right}}) {
    if (side < -1) refuse(std::string(name) + " = " + std::to_string(side) + " is below -1 (unbounded)");
  }
  if (window.sink_tokens < 0) refuse("sink_tokens = " + std::to_string(window.sink_tokens) + " is negative");
  std::vector<AttnSlice> slices;
  int64_t total = 0;
  for (size_t i = 0; i < seqlens.size(); ++i) {
    const Range document = next_range("seqlens", i, total, seqlens[i]);
    append_band(document, document, window, &slices);
    total = document.end;
  }
  return AttnMaskSpec(std::move(slices), total, total);
}

AttnMaskSpec prefix_lm_mask(const std::vector<PrefixDocument>& documents) {
  std::vector<AttnSlice> slices;
  int64_t total = 0;
  for (size_t i = 0; i < documents.size(); ++i) {
    const Range prefix = next_range("documents.prefix", i, total, documents[i].prefix);
    const Range rest = next_range("documents.rest", i, prefix.end, documents[i].rest);
    slices.push_back({.q = prefix, .k = prefix, .type = MaskType::kFull});
    slices.push_back({.q = rest, .k = {prefix.begin, rest.end}, .type = MaskType::kCausal});
    total = rest.end;
  }
  return AttnMaskSpec(std::move(slices), total, total);
}

AttnMaskSpec block_causal_mask(const std::vector<int64_t>& block_lengths) {
  std::vector<AttnSlice> slices;
  int64_t total = 0;
  for (size_t i = 0; i < block_lengths.size(); ++i) {
    const Range block = next_range("block_lengths", i, total, block_lengths[i]);
    slices.push_back({.q = block, .k = {0, block.end}, .type = MaskType::kFull});
    total = block.end;
  }
  return AttnMaskSpec(std::move(slices), total, total);
}

AttnMaskSpec chunked_local_mask(int64_t total, int64_t chunk) {
  const Range all = next_range("total", 0, 0, total);
  if (chunk < 1) refuse("chunk = " + std::to_string(chunk) + " is not positive");
  if (all.end / chunk > static_cast<int64_t>(kMaxPieces)) {
    refuse("chunk = " + std::to_string(chunk) + " cuts " + std::to_string(total) + " tokens into more than " +
           std::to_string(kMaxPieces) + " chunks");
  }
  std::vector<AttnSlice> slices;
  for (int64_t begin = 0; begin < all.end; begin += chunk) {
    const Range range{begin, std::min(all.end, begin + std::min(chunk, all.end))};
    slices.push_back({.q = range, .k = range, .type = MaskType::kCausal});
    if (range.end == all.end) break;  // begin + chunk need not fit
  }
  return AttnMaskSpec(std::move(slices), total, total);
}

AttnMaskSpec bidirectional_spans_mask(int64_t total, const std::vector<Range>& spans) {
  const Range all = next_range("total", 0, 0, total);
  std::vector<AttnSlice> slices{{.q = all, .k = all, .type = MaskType::kCausal}};
  int64_t free_from = 0;
  for (size_t i = 0; i < spans.size(); ++i) {
    const std::string span = "spans[" + std::to_string(i) + "] = [" + std::to_string(spans[i].begin) + ", " +
                             std::to_string(spans[i].end) + ")";
    if (spans[i].begin > spans[i].end) refuse(span + " is inverted");
    if (spans[i].begin < free_from || spans[i].end > all.end) {
      refuse(span + " is outside [" + std::to_string(free_from) + ", " + std::to_string(all.end) +
             "); spans are sorted, disjoint and inside the text");
    }
    free_from = spans[i].end;
    slices.push_back({.q = spans[i], .k = spans[i], .type = MaskType::kFull});
  }
  return AttnMaskSpec(std::move(slices), total, total);
}

AttnMaskSpec mask_from_dense(const std::vector<uint8_t>& dense, int64_t total_q, int64_t total_k) {
  checked_length("total_q, total_k", 0, total_q);
  checked_length("total_q, total_k", 1, total_k);
  int64_t pairs = 0;
  if (__builtin_mul_overflow(total_q, total_k, &pairs) || pairs != static_cast<int64_t>(dense.size())) {
    refuse("a dense mask of " + std::to_string(total_q) + " x " + std::to_string(total_k) +
           " has as many values, not " + std::to_string(dense.size()));
  }
  std::vector<AttnSlice> runs;
  for (int64_t q = 0; q < total_q; ++q) {
    const uint8_t* row = dense.data() + q * total_k;
    for (int64_t k = 0; k < total_k;) {
      const int64_t begin = k;
      const bool attended = row[k] != 0;
      while (k < total_k && (row[k] != 0) == attended) ++k;
      if (attended) runs.push_back({.q = {q, q + 1}, .k = {begin, k}, .type = MaskType::kFull});
    }
  }
  const AttnMaskSpec mask(std::move(runs), total_q, total_k);
  return AttnMaskSpec(mask.disjoint_slices(), total_q, total_k);
}

}  // namespace attnmux
