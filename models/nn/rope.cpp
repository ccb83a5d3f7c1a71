#include "models/nn/rope.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <numbers>

#include "attnmux/error.h"
#include "models/nn/simd.h"

namespace attnmux {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// `direction` is 1 forward and -1 backward: the transposed rotation.
ATTNMUX_MULTIVERSION void rotate_token(const float* x, const float* cos, const float* sin, float direction,
                                       int64_t heads, int64_t half, float* y) {
  for (int64_t head = 0; head < heads; ++head, x += 2 * half, y += 2 * half) {
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) {
      const float s = direction * sin[i];
      y[i] = x[i] * cos[i] - x[half + i] * s;
      y[half + i] = x[half + i] * cos[i] + x[i] * s;
    }
  }
}

at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, float direction) {
  const int64_t heads = x.size(1);
  const int64_t head_dim = x.size(2);
  const int64_t half = head_dim / 2;
  at::Tensor y = at::empty_like(x);
  const float* x_data = x.const_data_ptr<float>();
  const float* cos_data = cos.const_data_ptr<float>();
  const float* sin_data = sin.const_data_ptr<float>();
  float* y_data = y.mutable_data_ptr<float>();
  at::parallel_for(0, x.size(0), 64, [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      const int64_t offset = token * heads * head_dim;
      rotate_token(x_data + offset, cos_data + token * half, sin_data + token * half, direction, heads, half,
                   y_data + offset);
    }
  });
  return y;
}

class Rope : public torch::autograd::Function<Rope> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
    ctx->save_for_backward({cos, sin});
    return rotate(x, cos, sin, 1.0f);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    return {rotate(grads[0].contiguous(), saved[0], saved[1], -1.0f), at::Tensor(), at::Tensor()};
  }
};

// Llama 3.1: long wavelengths are divided by `factor`, short ones kept, those between blended.
at::Tensor scale_llama3(const at::Tensor& inverse, const RopeConfig& rope) {
  const auto context = static_cast<double>(rope.original_max_position_embeddings);
  const double low_wavelength = context / rope.low_freq_factor;
  const double high_wavelength = context / rope.high_freq_factor;
  const at::Tensor wavelength = 2.0 * std::numbers::pi / inverse;
  const at::Tensor scaled = at::where(wavelength > low_wavelength, inverse / rope.factor, inverse);
  const at::Tensor blend =
      (context / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  const at::Tensor blended = (1.0 - blend) * scaled / rope.factor + blend * scaled;
  const at::Tensor between = wavelength.lt(high_wavelength).logical_or(wavelength.gt(low_wavelength)).logical_not();
  return at::where(between, blended, scaled);
}

}  // namespace

at::Tensor rope_inverse_frequencies(const RopeConfig& rope, int64_t head_dim) {
  const at::Tensor exponent = at::arange(0, head_dim, 2, at::kFloat) / head_dim;
  const at::Tensor inverse = 1.0 / at::pow(at::Scalar(rope.theta), exponent);
  switch (rope.type) {
    case RopeType::kDefault: return inverse;
    case RopeType::kLinear: return inverse / rope.factor;
    case RopeType::kLlama3: return scale_llama3(inverse, rope);
  }
  return inverse;
}

RopeTable make_rope_table(const RopeConfig& rope, int64_t head_dim, const at::Tensor& position_ids,
                          at::ScalarType dtype) {
  const at::Tensor inverse = rope_inverse_frequencies(rope, head_dim).to(position_ids.device());
  const at::Tensor angle = position_ids.to(at::kFloat).unsqueeze(1) * inverse;
  return {angle.cos().to(dtype), angle.sin().to(dtype)};
}

RopeTable make_mrope_table(const RopeConfig& rope, int64_t head_dim, const std::vector<int64_t>& sections,
                           const at::Tensor& position_ids, at::ScalarType dtype) {
  if (position_ids.dim() == 1) return make_rope_table(rope, head_dim, position_ids, dtype);
  if (position_ids.dim() != 2 || position_ids.size(0) != 3) {
    throw Error(ErrorCode::kInvalidArgument,
                "position_ids have shape " + c10::str(position_ids.sizes()) + "; M-RoPE takes [3, tokens] or [tokens]");
  }
  const at::Tensor inverse = rope_inverse_frequencies(rope, head_dim).to(position_ids.device());
  const at::Tensor angles = position_ids.to(at::kFloat).unsqueeze(2) * inverse;  // [3, tokens, head_dim / 2]
  std::vector<at::Tensor> parts;
  int64_t begin = 0;
  for (int64_t axis = 0; axis < 3; begin += sections[axis++]) {
    parts.push_back(angles.select(0, axis).narrow(1, begin, sections[axis]));
  }
  const at::Tensor angle = at::cat(parts, 1);
  return {angle.cos().to(dtype), angle.sin().to(dtype)};
}

at::Tensor apply_rope(const at::Tensor& x, const RopeTable& table) {
  if (!x.is_cpu() || x.scalar_type() != at::kFloat) return apply_rope_reference(x, table);
  return Rope::apply(x.contiguous(), table.cos, table.sin);
}

at::Tensor apply_rope_reference(const at::Tensor& x, const RopeTable& table) {
  const at::Tensor cos = at::cat({table.cos, table.cos}, -1).unsqueeze(1);
  const at::Tensor sin = at::cat({table.sin, table.sin}, -1).unsqueeze(1);
  const std::vector<at::Tensor> halves = x.chunk(2, -1);
  return x * cos + at::cat({-halves[1], halves[0]}, -1) * sin;
}

}  // namespace attnmux
