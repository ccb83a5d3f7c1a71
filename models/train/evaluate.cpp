#include "models/train/evaluate.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "attnmux/error.h"
#include "models/nn/linear_cross_entropy.h"
#include "models/train/sequence_share.h"

namespace attnmux {

Evaluation evaluate(const RunContext& run, const DocumentPacker::Documents& documents, int64_t seq_len) {
  const at::NoGradGuard no_grad;
  DocumentPacker packer(documents, {.seq_len = seq_len, .shuffle = false, .repeat = false});
  Evaluation total;
  at::Tensor loss = at::zeros({1}, at::kDouble);  // of this rank's tokens
  for (int64_t index = 0; const std::optional<PackedBatch> sequence = packer.next(); ++index) {
    total.tokens += sequence->valid_tokens;
    if (index % run.mesh.shape.dp != run.mesh.dp_rank) continue;
    StepContext step(run.table, run.cache, {.training = false});
    const LlmBatch share = share_of(*sequence, run, step, {});
    const at::Tensor hidden = run.model.forward(share.input(), step, {});
    step.finish();
    loss += token_losses(hidden, run.model.lm_head(), share.labels, {}).sum(at::kDouble);
  }
  if (total.tokens == 0) throw Error(ErrorCode::kInvalidArgument, "the held-out documents predict no token");
  run.mesh.world->all_reduce(loss, ReduceOp::kSum)->wait();
  total.loss = loss.item<double>() / static_cast<double>(total.tokens);
  return total;
}

}  // namespace attnmux
