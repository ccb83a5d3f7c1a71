// Builders of the usual masks. Each throws Error(kInvalidArgument) naming the argument that cannot be taken.
//
//   AttnMaskSpec packed = varlen({100, 200, 300}, MaskType::kCausal);
//   auto [tree, samples] = prefix_tree({64, 16, 16}, {{0, 1}, {0, 2}});
//
// Pure functions, any thread.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "attnmux/mask.h"

namespace attnmux {

ATTNMUX_API AttnMaskSpec full_mask(int64_t total_q, int64_t total_k);

// Bottom-right aligned where total_q != total_k: the last query attends every key.
ATTNMUX_API AttnMaskSpec causal_mask(int64_t total_q, int64_t total_k);

// Documents packed one behind another; no pair crosses a document. type: kFull or kCausal.
ATTNMUX_API AttnMaskSpec varlen_mask(const std::vector<int64_t>& seqlens, MaskType type);

// Keys from `left` before to `right` after the diagonal (-1: unbounded on that side), per document, and beside them
// the document's first `sink_tokens` keys (only keys that `right` would allow: a sink never looks ahead of it).
struct SlidingWindow {
  int64_t left = -1;
  int64_t right = 0;
  int64_t sink_tokens = 0;
};
ATTNMUX_API AttnMaskSpec sliding_window_mask(const std::vector<int64_t>& seqlens, const SlidingWindow& window);

// Per document a bidirectional prefix, then causal text that also sees the whole prefix.
struct PrefixDocument {
  int64_t prefix = 0;
  int64_t rest = 0;
};
ATTNMUX_API AttnMaskSpec prefix_lm_mask(const std::vector<PrefixDocument>& documents);

// Rollouts that share prompts. Node i holds node_lengths[i] tokens, packed in node order; a sample is a path of node
// indices from a root to a leaf. Every node attends FULL to each of its ancestors and CAUSAL to itself.
struct PrefixTree {
  AttnMaskSpec mask;
  std::vector<std::vector<Range>> sample_ranges;  // per sample, the packed ranges of its nodes, root first
};
// Paths must agree on each node's parent; every node lies on a path; lengths may be 0.
ATTNMUX_API PrefixTree prefix_tree(const std::vector<int64_t>& node_lengths,
                                   const std::vector<std::vector<int64_t>>& sample_paths);

// Block i attends itself and every earlier block in full.
ATTNMUX_API AttnMaskSpec block_causal_mask(const std::vector<int64_t>& block_lengths);

// Causal inside chunks of `chunk` tokens; nothing crosses a chunk (Llama 4's local layers).
ATTNMUX_API AttnMaskSpec chunked_local_mask(int64_t total, int64_t chunk);

// Causal text in which each span (an image) attends itself in full. Spans sorted and disjoint.
ATTNMUX_API AttnMaskSpec bidirectional_spans_mask(int64_t total, const std::vector<Range>& spans);

// Row-major [total_q, total_k], nonzero = attended. For tests and small masks of any shape.
ATTNMUX_API AttnMaskSpec mask_from_dense(const std::vector<uint8_t>& dense, int64_t total_q, int64_t total_k);

}  // namespace attnmux
