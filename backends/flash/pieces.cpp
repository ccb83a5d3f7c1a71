#include "flash/pieces.h"

#include <algorithm>
#include <optional>
#include <string>

#include "attnmux/error.h"
#include "attnmux/mask_family.h"

namespace attnmux {
namespace {

void add_full(std::vector<Piece>& pieces, const Range& q, const Range& k) {
  if (!q.empty() && !k.empty()) pieces.push_back({.q = q, .k = k});
}

void add_causal(std::vector<Piece>& pieces, Range q, const Range& k) {
  q.begin = std::max(q.begin, q.end - k.size());
  if (q.size() <= 1) return add_full(pieces, q, k);
  const int64_t diagonal = k.end - q.size();
  add_full(pieces, q, {k.begin, diagonal});
  pieces.push_back({.q = q, .k = {diagonal, k.end}, .is_causal = true, .same_rows = diagonal > k.begin});
}

}  // namespace

std::vector<Piece> pieces_of(const AttnMaskSpec& mask) {
  const std::optional<PackedDocuments> packed = packed_documents(mask);
  if (!packed || packed->family == MaskFamily::kSlidingWindow) {
    throw Error(ErrorCode::kOutOfEnvelope, "flash: a mask of family " + std::string(to_string(classify(mask))) +
                                               "; this backend takes full, causal, varlen_full and varlen_causal. "
                                               "Choose another backend for this mask.");
  }
  std::vector<Piece> pieces;
  const bool causal = packed->family == MaskFamily::kCausal || packed->family == MaskFamily::kVarlenCausal;
  for (size_t i = 0; i + 1 < packed->cu_seqlens_q.size(); ++i) {
    const Range q = {packed->cu_seqlens_q[i], packed->cu_seqlens_q[i + 1]};
    const Range k = {packed->cu_seqlens_k[i], packed->cu_seqlens_k[i + 1]};
    causal ? add_causal(pieces, q, k) : add_full(pieces, q, k);
  }
  return pieces;
}

}  // namespace attnmux
