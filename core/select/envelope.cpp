#include "attnmux/envelope.h"

namespace attnmux {
namespace {

std::string yes_no(bool value) { return value ? "yes" : "no"; }
std::string number(int64_t value) { return std::to_string(value); }
int64_t head_dim_v(const AttentionRequest& request) {
  return request.head_dim_v == 0 ? request.head_dim : request.head_dim_v;
}

class Comparison {
 public:
  void require(bool holds, ReasonCode code, std::string got, std::string want, std::string hint = "") {
    if (!holds) reasons_.push_back({code, std::move(got), std::move(want), std::move(hint)});
  }
  std::vector<Reason> take() { return std::move(reasons_); }

 private:
  std::vector<Reason> reasons_;
};

}  // namespace

std::vector<Reason> outside_of(const AttentionRequest& planned, const AttentionRequest& call) {
  Comparison compare;
  bool masks_inside = true;
  for (MaskFamily family : {MaskFamily::kFull, MaskFamily::kCausal, MaskFamily::kVarlenFull, MaskFamily::kVarlenCausal,
                            MaskFamily::kSlidingWindow, MaskFamily::kArbitrary}) {
    masks_inside = masks_inside && (!call.masks.has(family) || planned.masks.covers(family));
  }
  compare.require(masks_inside, ReasonCode::kMaskType, call.masks.to_string(), planned.masks.to_string());
  compare.require(!call.cross_lengths || planned.cross_lengths, ReasonCode::kMaskCrossLengths,
                  "as many queries as keys: no", "as many queries as keys: yes");
  compare.require(!call.empty_rows || planned.empty_rows, ReasonCode::kMaskEmptyRows, "a query without keys",
                  "every query attends a key");
  compare.require(call.dtype == planned.dtype, ReasonCode::kDType, std::string(to_string(call.dtype)),
                  std::string(to_string(planned.dtype)));
  compare.require(call.heads_q == planned.heads_q && call.heads_kv == planned.heads_kv, ReasonCode::kHeads,
                  number(call.heads_q) + ":" + number(call.heads_kv),
                  number(planned.heads_q) + ":" + number(planned.heads_kv));
  compare.require(call.head_dim == planned.head_dim, ReasonCode::kHeadDim, number(call.head_dim),
                  number(planned.head_dim));
  compare.require(head_dim_v(call) == head_dim_v(planned), ReasonCode::kHeadDimV, number(head_dim_v(call)),
                  number(head_dim_v(planned)));
  compare.require(planned.max_tokens == 0 || call.max_tokens <= planned.max_tokens, ReasonCode::kLength,
                  number(call.max_tokens) + " tokens", "at most " + number(planned.max_tokens));
  // A backend sees THD whatever the caller's layout is, so the layout alone never leaves the envelope.
  compare.require(call.device == planned.device, ReasonCode::kDevice, std::string(to_string(call.device)),
                  std::string(to_string(planned.device)));
  compare.require(!call.training || planned.training, ReasonCode::kTraining,
                  "a gradient would be recorded: " + yes_no(call.training), yes_no(planned.training),
                  "plan the module for training, or call it under no-grad");
  compare.require(!call.deterministic || planned.deterministic, ReasonCode::kDeterministic,
                  "deterministic: " + yes_no(call.deterministic), yes_no(planned.deterministic),
                  "write require = { deterministic = true } in the module's rule");
  compare.require(call.cp_size == planned.cp_size, ReasonCode::kCpSize, number(call.cp_size), number(planned.cp_size));
  return compare.take();
}

}  // namespace attnmux
