#include "models/train/evaluate.h"

#include <c10/core/GradMode.h>

#include "attnmux/error.h"
#include "models/nn/layer_masks.h"
#include "models/nn/linear_cross_entropy.h"

namespace attnmux {

Evaluation evaluate(const CausalLm& model, const DocumentPacker::Documents& documents, int64_t seq_len,
                    const std::shared_ptr<const SelectionTable>& table, const std::shared_ptr<PreparedCache>& cache) {
  const at::NoGradGuard no_grad;
  DocumentPacker packer(documents, {.seq_len = seq_len, .shuffle = false, .repeat = false});
  Evaluation total;
  while (const std::optional<PackedBatch> batch = packer.next()) {
    StepContext step(table, cache, {.training = false});
    arm_layers(step, model.config(), batch->mask);
    const at::Tensor hidden = model.forward({batch->input_ids, batch->position_ids}, step, {});
    step.finish();
    total.loss += token_losses(hidden, model.lm_head(), batch->labels, {}).sum(at::kDouble).item<double>();
    total.tokens += batch->valid_tokens;
  }
  if (total.tokens == 0) throw Error(ErrorCode::kInvalidArgument, "the held-out documents predict no token");
  total.loss /= static_cast<double>(total.tokens);
  return total;
}

}  // namespace attnmux
