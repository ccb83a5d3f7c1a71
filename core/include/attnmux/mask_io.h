// Masks as text, JSON and pictures (the command line's contract).
//
//   AttnMaskSpec mask = parse_mask("window:4096,left=1023,right=0");
//   std::string json = mask_to_json(mask);         // {"total_q": .., "total_k": .., "slices": [..]}
//   std::string svg = mask_to_svg(mask, {});
//
// Errors: Error(kUsage) for a text that is no mask (with the nearest spelling), Error(kConfig) for JSON, naming file,
// key and index, Error(kBadFile) for a file that cannot be read.
#pragma once

#include <string>
#include <string_view>

#include "attnmux/mask.h"
#include "attnmux/mask_builders.h"

namespace attnmux {

// `full:N` `full:QxK` `causal:N` `causal:QxK` `varlen:100,200` `varlen-full:100,200` `window:N,left=L,right=R[,sink=S]`
// `prefix-lm:100+300,50+20` `block-causal:B,B` `chunked:N,chunk=C` `tree:FILE.json` `bidirectional-spans:N,A-B,C-D`
// or a path that ends in `.json`.
ATTNMUX_API AttnMaskSpec parse_mask(std::string_view text);

// Strict: unknown, missing and repeated keys are errors, and so is every number that is no int64.
ATTNMUX_API AttnMaskSpec mask_from_json(std::string_view json);

// {"node_lengths": [..], "sample_paths": [[..], ..]}, as strictly.
ATTNMUX_API PrefixTree prefix_tree_from_json(std::string_view json);

// The slices as given (not the canonical form), one a line; mask_from_json returns an equal mask.
ATTNMUX_API std::string mask_to_json(const AttnMaskSpec& mask);

struct SvgOptions {
  int64_t size_px = 640;  // the longer side of the picture
  std::string title;      // shown above; empty: none
};
// The attended pairs as polygons, one for each slice of the canonical form: down to the single token where a token is
// large enough to see, with the straight line through the middle of its stairs for an edge elsewhere. Queries run down,
// keys to the right; axes carry token counts. Self-contained, under 40 bytes a slice.
ATTNMUX_API std::string mask_to_svg(const AttnMaskSpec& mask, const SvgOptions& options);

}  // namespace attnmux
