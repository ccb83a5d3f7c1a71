#include "models/nn/linear_cross_entropy.h"

#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "attnmux/error.h"
#include "models/nn/simd.h"

namespace attnmux {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

ATTNMUX_MULTIVERSION float row_max(const float* z, int64_t n) {
  float maximum = z[0];
#pragma omp simd reduction(max : maximum)
  for (int64_t i = 0; i < n; ++i) maximum = z[i] > maximum ? z[i] : maximum;
  return maximum;
}

// z <- exp(z - shift); returns the sum, blocks of it in fp64 so that the error does not grow with the vocabulary.
ATTNMUX_MULTIVERSION double exponentiate(float* z, int64_t n, float shift) {
  constexpr int64_t kBlock = 1024;
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = std::min(n, begin + kBlock);
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = begin; i < end; ++i) {
      z[i] = fast_exp(z[i] - shift);
      sum += z[i];
    }
    total += sum;
  }
  return total;
}

ATTNMUX_MULTIVERSION void scale(float* z, int64_t n, float factor) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) z[i] *= factor;
}

// One row of logits to its loss and, in place, to d loss / d logits times `gradient_scale`.
float row_loss(float* z, int64_t n, int64_t label, float gradient_scale, bool want_gradient) {
  if (label == kIgnoredLabel) {
    if (want_gradient) std::fill(z, z + n, 0.0f);
    return 0.0f;
  }
  const float at_label = z[label];
  const float maximum = row_max(z, n);
  const double total = exponentiate(z, n, maximum);
  if (want_gradient) {
    scale(z, n, static_cast<float>(gradient_scale / total));
    z[label] -= gradient_scale;
  }
  return static_cast<float>(std::log(total)) + maximum - at_label;
}

// logits [rows, vocab] fp32 become gradients; losses [rows] are written.
void chunk_losses_cpu(at::Tensor& logits, const at::Tensor& labels, float gradient_scale, bool want_gradient,
                      at::Tensor losses) {
  const int64_t n = logits.size(1);
  float* data = logits.mutable_data_ptr<float>();
  const int64_t* label_data = labels.const_data_ptr<int64_t>();
  float* loss_data = losses.mutable_data_ptr<float>();
  at::parallel_for(0, logits.size(0), 4, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      loss_data[row] = row_loss(data + row * n, n, label_data[row], gradient_scale, want_gradient);
    }
  });
}

// The same from ATen operators, for other devices and fp64.
void chunk_losses_aten(at::Tensor& logits, const at::Tensor& labels, double gradient_scale, bool want_gradient,
                       at::Tensor losses) {
  const at::Tensor valid = labels.ne(kIgnoredLabel);
  const at::Tensor index = labels.clamp_min(0).unsqueeze(1);
  const at::Tensor log_probability = at::log_softmax(logits, -1);
  losses.copy_(log_probability.gather(1, index).squeeze(1).neg().mul(valid));
  if (!want_gradient) return;
  logits.copy_(log_probability.exp());
  logits.scatter_add_(1, index, at::full_like(index, -1, logits.options()));
  logits.mul_(valid.unsqueeze(1)).mul_(gradient_scale);
}

void check_labels(const at::Tensor& labels, int64_t rows, int64_t vocab) {
  if (labels.dim() != 1 || labels.size(0) != rows || labels.scalar_type() != at::kLong) {
    throw Error(ErrorCode::kInvalidArgument, "labels must be int64 [" + std::to_string(rows) + "], as hidden has rows");
  }
  const at::Tensor wrong = labels.ge(vocab).logical_or(labels.lt(0)).logical_and(labels.ne(kIgnoredLabel)).nonzero();
  if (wrong.numel() == 0) return;
  const int64_t index = wrong[0].item<int64_t>();
  throw Error(ErrorCode::kInvalidArgument,
              "labels[" + std::to_string(index) + "] = " + std::to_string(labels[index].item<int64_t>()) +
                  "; allowed are 0 to " + std::to_string(vocab - 1) + " and " + std::to_string(kIgnoredLabel));
}

int64_t rows_of_chunk(int64_t vocab) { return std::max<int64_t>(1, kLogitChunkBytes / 4 / vocab); }

// Walks the rows in chunks: `use(first, rows, logits)` may overwrite the logits. One buffer serves all chunks.
template <class Use>
void for_each_chunk(const at::Tensor& hidden, const at::Tensor& weight, const Use& use) {
  const int64_t tokens = hidden.size(0);
  const int64_t step = std::min(tokens, rows_of_chunk(weight.size(0)));
  const at::ScalarType wide = hidden.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor transposed = weight.t();
  at::Tensor buffer = at::empty({step, weight.size(0)}, hidden.options());
  for (int64_t first = 0; first < tokens; first += step) {
    const int64_t rows = std::min(step, tokens - first);
    at::Tensor logits = buffer.narrow(0, 0, rows);
    at::mm_out(logits, hidden.narrow(0, first, rows), transposed);
    at::Tensor wide_logits = logits.to(wide);
    use(first, rows, wide_logits);
  }
}

void chunk_losses(at::Tensor& logits, const at::Tensor& labels, double gradient_scale, bool want_gradient,
                  at::Tensor losses) {
  if (logits.is_cpu() && logits.scalar_type() == at::kFloat) {
    chunk_losses_cpu(logits, labels, static_cast<float>(gradient_scale), want_gradient, losses);
  } else {
    chunk_losses_aten(logits, labels, gradient_scale, want_gradient, losses);
  }
}

class LinearCrossEntropy : public torch::autograd::Function<LinearCrossEntropy> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& hidden, const at::Tensor& weight,
                            const at::Tensor& labels, int64_t valid_tokens, bool want_hidden, bool want_weight) {
    const auto wide = hidden.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    at::Tensor losses = at::empty({hidden.size(0)}, hidden.options().dtype(wide));
    at::Tensor dhidden = want_hidden ? at::empty_like(hidden) : at::Tensor();
    // Without rows, on a rank without tokens, no chunk writes it.
    const bool no_rows = hidden.size(0) == 0;
    at::Tensor dweight = !want_weight ? at::Tensor() : no_rows ? at::zeros_like(weight) : at::empty_like(weight);
    const double gradient_scale = 1.0 / static_cast<double>(valid_tokens);
    for_each_chunk(hidden, weight, [&](int64_t first, int64_t rows, at::Tensor& logits) {
      chunk_losses(logits, labels.narrow(0, first, rows), gradient_scale, want_hidden || want_weight,
                   losses.narrow(0, first, rows));
      const at::Tensor dlogits = logits.to(hidden.scalar_type());
      if (want_hidden) {
        at::Tensor rows_of_dhidden = dhidden.narrow(0, first, rows);
        at::mm_out(rows_of_dhidden, dlogits, weight);
      }
      if (want_weight) {
        dweight.addmm_(dlogits.t(), hidden.narrow(0, first, rows), /*beta=*/first == 0 ? 0 : 1);
      }
    });
    ctx->saved_data["dhidden"] = dhidden;
    ctx->saved_data["dweight"] = dweight;
    return losses.sum() * gradient_scale;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    // Taken out of the context: the sole owner of a gradient may be kept as it is by the leaf that receives it.
    at::Tensor dhidden = std::move(ctx->saved_data["dhidden"]).toTensor();
    at::Tensor dweight = std::move(ctx->saved_data["dweight"]).toTensor();
    ctx->saved_data.clear();
    const double factor = grads[0].item<double>();
    if (factor != 1.0) {
      if (dhidden.defined()) dhidden.mul_(factor);
      if (dweight.defined()) dweight.mul_(factor);
    }
    return {std::move(dhidden), std::move(dweight), at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels,
                                int64_t valid_tokens) {
  check_labels(labels, hidden.size(0), weight.size(0));
  if (valid_tokens < 1) {
    throw Error(ErrorCode::kInvalidArgument,
                "valid_tokens = " + std::to_string(valid_tokens) + "; at least one token must carry a label");
  }
  // Asked here: inside apply() gradients are switched off.
  const bool recording = at::GradMode::is_enabled();
  return LinearCrossEntropy::apply(hidden.contiguous(), weight, labels, valid_tokens,
                                   recording && hidden.requires_grad(), recording && weight.requires_grad());
}

at::Tensor linear_cross_entropy_reference(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels,
                                          int64_t valid_tokens) {
  check_labels(labels, hidden.size(0), weight.size(0));
  at::Tensor logits = at::linear(hidden, weight);
  if (logits.scalar_type() != at::kDouble) logits = logits.to(at::kFloat);
  return at::cross_entropy_loss(logits, labels, {}, at::Reduction::Sum, kIgnoredLabel) / valid_tokens;
}

at::Tensor token_losses(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels,
                        const LogitConsumer& on_logits) {
  const at::NoGradGuard no_grad;
  check_labels(labels, hidden.size(0), weight.size(0));
  at::Tensor losses = at::empty({hidden.size(0)}, hidden.options().dtype(at::kFloat));
  for_each_chunk(hidden, weight, [&](int64_t first, int64_t rows, at::Tensor& logits) {
    if (on_logits) on_logits(first, logits);
    at::Tensor chunk = losses.narrow(0, first, rows);
    chunk_losses(logits, labels.narrow(0, first, rows), 0.0, /*want_gradient=*/false, chunk);
  });
  return losses;
}

}  // namespace attnmux
