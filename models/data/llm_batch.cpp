#include "models/data/llm_batch.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <string>

#include "attnmux/dispatch.h"
#include "attnmux/error.h"
#include "attnmux/mask_builders.h"
#include "models/nn/linear_cross_entropy.h"

namespace attnmux {
namespace {

void check_length(const char* name, const at::Tensor& tensor, int64_t tokens) {
  if (!tensor.defined() || (tensor.dim() == 1 && tensor.size(0) == tokens)) return;
  throw Error(ErrorCode::kInvalidArgument, std::string(name) + " has shape " + c10::str(tensor.sizes()) +
                                               ", input_ids has " + std::to_string(tokens) + " tokens");
}

AttnMaskSpec mask_of(const LlmSequence& sequence, int64_t tokens) {
  if (!sequence.mask) return causal_mask(tokens, tokens);
  if (sequence.mask->total_q() != tokens || sequence.mask->total_k() != tokens) {
    throw Error(ErrorCode::kInvalidArgument, "the mask is " + std::to_string(sequence.mask->total_q()) + " x " +
                                                 std::to_string(sequence.mask->total_k()) + ", the sequence has " +
                                                 std::to_string(tokens) + " tokens");
  }
  return *sequence.mask;
}

}  // namespace

LlmBatch prepare_llm_batch(const LlmSequence& sequence, CpGroup& group, const LlmBatchOptions& options,
                           PlanCache& plans) {
  if (!sequence.input_ids.defined() || sequence.input_ids.dim() != 1 || sequence.input_ids.size(0) == 0) {
    throw Error(ErrorCode::kInvalidArgument, "input_ids [tokens] is missing or empty");
  }
  const int64_t tokens = sequence.input_ids.size(0);
  check_length("position_ids", sequence.position_ids, tokens);
  check_length("labels", sequence.labels, tokens);

  DispatchOptions dispatch_options = options.dispatch;
  dispatch_options.cp = group.size();
  dispatch_options.chunk_size = std::min(dispatch_options.chunk_size, tokens);
  const AgreedPlan plan(group, *plans.plan(mask_of(sequence, tokens), dispatch_options, options.stages, options.size));

  const auto own = [&](const at::Tensor& whole, int64_t fill) {
    return whole.defined() ? dispatch(whole, plan.plan().dispatch(), group.rank(), static_cast<double>(fill)) : whole;
  };
  const at::Tensor positions =
      sequence.position_ids.defined() ? sequence.position_ids : at::arange(tokens, sequence.input_ids.options());
  return {own(sequence.input_ids, 0), own(positions, 0), own(sequence.labels, kIgnoredLabel), plan};
}

}  // namespace attnmux
