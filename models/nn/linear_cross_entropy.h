// The language model head and its loss in one, without the [tokens, vocab] logits ever existing as a whole.
//
//   at::Tensor loss = linear_cross_entropy(hidden, lm_head, labels, /*valid_tokens=*/count);
//   loss.backward();
//
// Rows go in chunks of at most kLogitChunkBytes of logits; each chunk's gradients are computed while its logits are
// at hand, so backward recomputes nothing. Any thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace attnmux {

inline constexpr int64_t kIgnoredLabel = -100;          // as in torch: no loss, no gradient
inline constexpr int64_t kLogitChunkBytes = 128 << 20;  // of fp32 logits

// sum over rows with a label of -log softmax(hidden weight^T)[label], divided by valid_tokens: a scalar, fp32 (fp64 for
// fp64 input). Softmax runs in fp32. Differentiable in hidden and weight. Throws Error(kInvalidArgument) naming the
// index and value of a label outside [0, vocab) that is not kIgnoredLabel, and for valid_tokens < 1.
at::Tensor linear_cross_entropy(const at::Tensor& hidden,  // [tokens, hidden]
                                const at::Tensor& weight,  // [vocab, hidden]
                                const at::Tensor& labels,  // [tokens] int64
                                int64_t valid_tokens);

// The same through whole logits and at::cross_entropy_loss: what linear_cross_entropy is tested against.
at::Tensor linear_cross_entropy_reference(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels,
                                          int64_t valid_tokens);

// Loss of each row, 0 for ignored ones: [tokens] fp32, no gradient. `on_logits`, when given, sees each chunk of logits
// (fp32, [rows, vocab], overwritten afterwards) with its first row, in order.
using LogitConsumer = std::function<void(int64_t first_row, const at::Tensor& logits)>;
at::Tensor token_losses(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels,
                        const LogitConsumer& on_logits);

}  // namespace attnmux
