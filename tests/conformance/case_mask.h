// The masks of conformance cases, each in two forms that share no code: the AttnMaskSpec that a backend gets, and the
// predicate from which the oracle computes.
//
// Kinds of mask, with sq queries and sk keys:
//   full  causal (bottom-right)  inv-causal (top-left)  bi-causal (both)
//   window:L:R        keys from L before to R after the diagonal (-1: unbounded); window:L:R:S: and the first S keys
//   varlen:a+b+c      causal documents;  varlen-full:a+b+c
//   varlen-cross:QxK+QxK   causal documents with lengths of their own for queries and keys
//   varlen-window:L:R:a+b  a window in each document
//   prefix-lm:P-R+P-R      bidirectional prefix of P, then R causal, per document
//   block-causal:a+b+c     each block attends itself and all before it
//   chunked:C         causal inside chunks of C
//   spans             causal, with bidirectional spans drawn from the seed
//   tree              a prefix tree of rollouts drawn from the seed
//   union             slices of every type drawn from the seed
//   holes             as union, and every third query attends nothing
//   nothing           no pair at all
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "attnmux/mask.h"
#include "conformance/case.h"

namespace attnmux::conformance {

struct CaseMask {
  AttnMaskSpec spec;
  std::function<bool(int64_t q, int64_t k)> allowed;
};

// Throws Error(kUsage) for a text that is no kind, or whose lengths do not add up to sq and sk.
CaseMask mask_of(const Case& c);

// Queries and keys of a mask that lists lengths; nothing for the others.
std::pair<std::optional<int64_t>, std::optional<int64_t>> listed_tokens(const std::string& mask);

}  // namespace attnmux::conformance
