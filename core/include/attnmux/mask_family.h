// Which masks a call may bring, as a small set: what a backend is asked before any tensor exists.
//
//   MaskFamilySet planned = {MaskFamily::kVarlenCausal};
//   planned.covers(classify(mask));   // a causal mask of one document is inside, a window is not
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "attnmux/export.h"
#include "attnmux/mask.h"

namespace attnmux {

// Each family contains those named behind it.
enum class MaskFamily : uint8_t {
  kFull,           // one rectangle over all queries and keys
  kCausal,         // one bottom-right triangle over all queries and keys
  kVarlenFull,     // documents in order, each FULL inside, nothing between them (kFull)
  kVarlenCausal,   // documents in order, each CAUSAL inside (kCausal)
  kSlidingWindow,  // documents in order, each one diagonal band (kFull, kCausal, kVarlenFull, kVarlenCausal)
  kArbitrary,      // any union of slices (all of the above)
};

ATTNMUX_API std::string_view to_string(MaskFamily family);

// True where every mask of `inner` is a mask of `outer`.
ATTNMUX_API bool contains(MaskFamily outer, MaskFamily inner);

// The narrowest family that holds the mask, decided from the attended pairs, not from how they were written down.
ATTNMUX_API MaskFamily classify(const AttnMaskSpec& mask);

// A mask of packed documents in the terms of variable-length kernels: document i has queries
// [cu_seqlens_q[i], cu_seqlens_q[i + 1]) and keys [cu_seqlens_k[i], cu_seqlens_k[i + 1]); its diagonal ends in its
// bottom-right corner, and a query sees `left` keys before and `right` keys after the diagonal (-1: unbounded).
struct PackedDocuments {
  MaskFamily family = MaskFamily::kFull;  // never kArbitrary
  std::vector<int64_t> cu_seqlens_q;      // [documents + 1], starts at 0
  std::vector<int64_t> cu_seqlens_k;      // [documents + 1], starts at 0
  int64_t left = -1;
  int64_t right = -1;
};
// Nothing where the mask is no such packing (kArbitrary).
ATTNMUX_API std::optional<PackedDocuments> packed_documents(const AttnMaskSpec& mask);

class ATTNMUX_API MaskFamilySet {
 public:
  MaskFamilySet() = default;
  MaskFamilySet(std::initializer_list<MaskFamily> families) {
    for (MaskFamily family : families) insert(family);
  }
  void insert(MaskFamily family) { bits_ |= 1u << static_cast<unsigned>(family); }
  bool has(MaskFamily family) const { return bits_ >> static_cast<unsigned>(family) & 1u; }
  bool empty() const { return bits_ == 0; }
  // True where some member contains `family`.
  bool covers(MaskFamily family) const;
  // "causal, varlen_causal"
  std::string to_string() const;
  friend bool operator==(const MaskFamilySet&, const MaskFamilySet&) = default;

 private:
  uint32_t bits_ = 0;
};

}  // namespace attnmux
