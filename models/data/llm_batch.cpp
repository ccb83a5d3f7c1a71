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

int64_t tokens_of(const LlmSequence& sequence) {
  const at::Tensor &ids = sequence.input_ids, &embeds = sequence.inputs_embeds;
  if (ids.defined() && embeds.defined()) {
    throw Error(ErrorCode::kInvalidArgument, "both input_ids and inputs_embeds are given; one is expected");
  }
  if (embeds.defined() ? embeds.dim() != 2 || embeds.size(0) == 0
                       : !ids.defined() || ids.dim() != 1 || ids.size(0) == 0) {
    throw Error(ErrorCode::kInvalidArgument,
                "input_ids [tokens] or inputs_embeds [tokens, hidden] is missing or empty");
  }
  return embeds.defined() ? embeds.size(0) : ids.size(0);
}

void check_length(const char* name, const at::Tensor& tensor, int64_t tokens, const char* expected = "[tokens]") {
  if (!tensor.defined() || (tensor.dim() == 1 && tensor.size(0) == tokens)) return;
  throw Error(ErrorCode::kInvalidArgument, std::string(name) + " has shape " + c10::str(tensor.sizes()) +
                                               ", expected is " + expected + "; the sequence has " +
                                               std::to_string(tokens) + " tokens");
}

void check_positions(const at::Tensor& positions, int64_t tokens) {
  const bool mrope = positions.defined() && positions.dim() == 2 && positions.size(0) == 3;
  check_length("position_ids", mrope ? positions[0] : positions, tokens, "[tokens] or [3, tokens]");
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
  const int64_t tokens = tokens_of(sequence);
  check_positions(sequence.position_ids, tokens);
  check_length("labels", sequence.labels, tokens);

  DispatchOptions dispatch_options = options.dispatch;
  dispatch_options.cp = group.size();
  dispatch_options.chunk_size = std::min(dispatch_options.chunk_size, tokens);
  const AgreedPlan plan(group, *plans.plan(mask_of(sequence, tokens), dispatch_options, options.overlap, options.size));

  const auto own = [&](const at::Tensor& whole, int64_t fill) {
    return whole.defined() ? dispatch(whole, plan.plan().dispatch(), group.rank(), static_cast<double>(fill)) : whole;
  };
  const at::Tensor positions = sequence.position_ids.defined() ? sequence.position_ids : at::arange(tokens, at::kLong);
  return {.input_ids = own(sequence.input_ids, 0),
          .inputs_embeds = own(sequence.inputs_embeds, 0),
          .position_ids = positions.dim() == 1 ? own(positions, 0) : own(positions.t(), 0).t(),
          .labels = own(sequence.labels, kIgnoredLabel),
          .plan = plan};
}

}  // namespace attnmux
