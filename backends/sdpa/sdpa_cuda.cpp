#include "sdpa/sdpa_cuda.h"

#include <ATen/ATen.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention_backward.h>
#include <ATen/ops/_scaled_dot_product_efficient_attention.h>
#include <ATen/ops/_scaled_dot_product_efficient_attention_backward.h>

#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>

#include "attnmux/mask_family.h"
#include "common/aten_tensors.h"
#include "common/dense_mask.h"
#include "common/gates.h"
#include "common/positive_scale.h"
#include "common/prepared_as.h"

namespace attnmux {
namespace {

constexpr std::string_view kId = "sdpa";
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int64_t kCudnnHeadDim = 128;

bool is_16_bit(DType dtype) { return dtype == DType::kBFloat16 || dtype == DType::kFloat16; }

// Whole loads of 16 bytes.
std::optional<Reason> head_dim_of_whole_loads(const AttentionRequest& request) {
  const int64_t step = is_16_bit(request.dtype) ? 8 : 4;
  if (request.head_dim >= step && request.head_dim % step == 0) return std::nullopt;
  return Reason{ReasonCode::kHeadDim, std::to_string(request.head_dim),
                "a multiple of " + std::to_string(step) + " in " + std::string(to_string(request.dtype)) + " on CUDA",
                "choose another backend for this module"};
}

// Masks that need a matrix are limited as on the CPU; a causal one needs it where the lengths differ.
std::optional<Reason> dense_tokens(const AttentionRequest& request) {
  const MaskFamilySet& masks = request.masks;
  const bool matrix = masks.has(MaskFamily::kVarlenFull) || masks.has(MaskFamily::kVarlenCausal) ||
                      masks.has(MaskFamily::kSlidingWindow) || masks.has(MaskFamily::kArbitrary) ||
                      (masks.has(MaskFamily::kCausal) && request.cross_lengths);
  return matrix ? at_most_tokens<kMaxDenseTokens>(request) : std::nullopt;
}

constexpr Gate kGates[] = {
    dtype_among<DType::kFloat32, DType::kBFloat16, DType::kFloat16>,
    valid_heads,
    head_dim_of_whole_loads,
    equal_head_dims,
    dense_tokens,
    int32_tokens,
    on_device<DeviceKind::kCuda>,
    at_least_arch<80>,
    no_deterministic_backward,
    no_softcap,
    no_attention_sink,
    no_dropout,
};

struct SdpaCudaPrepared final : Prepared {
  bool cudnn = false;  // else the memory-efficient kernel
  bool is_causal = false;
  at::Tensor bias;   // [1, 1, tokens_q, tokens_k] 0 or -inf, rows at multiples of 16 elements; undefined: none needed
  at::Tensor empty;  // [tokens_q] bool, rows without keys; undefined: none
};

at::ScalarType scalar_type(DType dtype) {
  return dtype == DType::kBFloat16 ? at::kBFloat16 : dtype == DType::kFloat16 ? at::kHalf : at::kFloat;
}

at::Tensor additive(const AttnMaskSpec& mask, const AttentionShape& shape) {
  constexpr int64_t kStep = 16;  // what the kernel wants of the stride of a row
  const at::Tensor attended = dense_mask(mask, kId).to(device_of(shape));
  const at::Tensor bias = at::zeros({mask.total_q(), (mask.total_k() + kStep - 1) / kStep * kStep},
                                    at::device(device_of(shape)).dtype(scalar_type(shape.dtype)))
                              .narrow(1, 0, mask.total_k());
  bias.masked_fill_(attended.logical_not(), -kInfinity);
  return bias.unsqueeze(0).unsqueeze(0);
}

std::optional<at::Tensor> bias_of(const SdpaCudaPrepared& prepared, int64_t heads) {
  if (!prepared.bias.defined()) return std::nullopt;
  return prepared.bias.expand({1, heads, prepared.bias.size(2), prepared.bias.size(3)});
}

// The memory-efficient kernel knows no groups: each query head gets its own k and v.
at::Tensor own_heads(const at::Tensor& kv, const at::Tensor& q) {
  return kv.size(1) == q.size(1) ? kv : kv.repeat_interleave(q.size(1) / kv.size(1), 1);
}

at::Tensor sum_groups(const at::Tensor& grad, int64_t heads_kv) {
  return grad.size(1) == heads_kv ? grad : grad.unflatten(1, {heads_kv, grad.size(1) / heads_kv}).sum(2);
}

ForwardResult efficient_forward(const SdpaCudaPrepared& own, const at::Tensor& q, const at::Tensor& k,
                                const at::Tensor& v, double softmax_scale) {
  const auto result = at::_scaled_dot_product_efficient_attention(
      heads_first(q), heads_first(own_heads(k, q)), heads_first(own_heads(v, q)), bias_of(own, q.size(1)),
      /*compute_log_sumexp=*/true, /*dropout_p=*/0.0, own.is_causal, softmax_scale);
  // The kernel rounds the rows of its lse up to a multiple of 32.
  return {.out = tokens_first(std::get<0>(result)), .lse = tokens_first(std::get<1>(result).narrow(2, 0, q.size(0)))};
}

BackwardResult efficient_backward(const SdpaCudaPrepared& own, const BackwardArgs& args, const at::Tensor& q,
                                  const at::Tensor& k, const at::Tensor& v, double softmax_scale) {
  constexpr int64_t kLseStep = 32;
  const int64_t rows = (q.size(0) + kLseStep - 1) / kLseStep * kLseStep;
  const at::Tensor lse = at::constant_pad_nd(kernel_lse(args.lse), {0, rows - q.size(0)}, kInfinity).unsqueeze(0);
  const at::Tensor no_dropout_state = at::empty({}, q.options().dtype(at::kLong));
  const auto [dq, dk, dv, dbias] = at::_scaled_dot_product_efficient_attention_backward(
      heads_first(aligned_rows(args.dout)), heads_first(q), heads_first(own_heads(k, q)), heads_first(own_heads(v, q)),
      bias_of(own, q.size(1)).value_or(at::Tensor()), heads_first(aligned_rows(args.out)), lse, no_dropout_state,
      no_dropout_state, /*dropout_p=*/0.0, /*grad_input_mask=*/{true, true, true, false}, own.is_causal, softmax_scale);
  return {.dq = tokens_first(dq),
          .dk = sum_groups(tokens_first(dk), k.size(1)),
          .dv = sum_groups(tokens_first(dv), k.size(1))};
}

ForwardResult cudnn_forward(const SdpaCudaPrepared& own, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            double softmax_scale) {
  const auto result = at::_scaled_dot_product_cudnn_attention(
      heads_first(q), heads_first(k), heads_first(v), /*attn_bias=*/std::nullopt, /*compute_log_sumexp=*/true,
      /*dropout_p=*/0.0, own.is_causal, /*return_debug_mask=*/false, softmax_scale);
  const at::Tensor lse = std::get<1>(result).view({q.size(1), q.size(0)});
  return {.out = tokens_first(std::get<0>(result)), .lse = lse.transpose(0, 1)};
}

BackwardResult cudnn_backward(const SdpaCudaPrepared& own, const BackwardArgs& args, const at::Tensor& q,
                              const at::Tensor& k, const at::Tensor& v, double softmax_scale) {
  const at::Tensor no_dropout_state = at::empty({}, q.options().dtype(at::kLong));
  const auto [dq, dk, dv] = at::_scaled_dot_product_cudnn_attention_backward(
      heads_first(aligned_rows(args.dout)), heads_first(q), heads_first(k), heads_first(v),
      heads_first(aligned_rows(args.out)), kernel_lse(args.lse).unsqueeze(0).unsqueeze(3), no_dropout_state,
      no_dropout_state, /*attn_bias=*/at::Tensor(), /*cum_seq_q=*/at::Tensor(), /*cum_seq_k=*/at::Tensor(), q.size(0),
      k.size(0), /*dropout_p=*/0.0, own.is_causal, softmax_scale);
  return {.dq = tokens_first(dq), .dk = tokens_first(dk), .dv = tokens_first(dv)};
}

class SdpaCudaBackend final : public AttentionBackend {
 public:
  BackendInfo info() const override {
    return {.id = std::string(kId),
            .version = ATTNMUX_VERSION,
            .description = "ATen scaled dot product attention: cuDNN's and the memory-efficient kernel"};
  }

  Support query(const AttentionRequest& request) const noexcept override { return run_gates(kGates, request); }

  std::shared_ptr<const Prepared> prepare(const AttnMaskSpec& mask, const AttentionShape& shape) const override {
    auto prepared = std::make_shared<SdpaCudaPrepared>();
    const MaskFamily family = classify(mask);
    prepared->is_causal = family == MaskFamily::kCausal && mask.total_q() == mask.total_k();
    if (family == MaskFamily::kFull || prepared->is_causal) {
      const bool one_pair = mask.total_q() == 1 && mask.total_k() == 1;  // cuDNN has no backward for it
      prepared->cudnn = is_16_bit(shape.dtype) && shape.head_dim <= kCudnnHeadDim && !one_pair;
      return prepared;
    }
    prepared->bias = additive(mask, shape);
    const at::Tensor empty = empty_rows(mask);
    if (empty.any().item<bool>()) prepared->empty = empty.to(device_of(shape));
    return prepared;
  }

  ForwardResult forward(const Prepared& prepared, const ForwardArgs& args) const override {
    const auto& own = prepared_as<SdpaCudaPrepared>(prepared, kId);
    if (nothing_to_do(args.q, args.k)) return empty_forward(args.q);
    const PositiveScale scale = make_positive(args.softmax_scale);
    const at::Tensor q = scale.apply(aligned_rows(args.q)), k = aligned_rows(args.k), v = aligned_rows(args.v);
    return with_empty_rows(own.cudnn ? cudnn_forward(own, q, k, v, scale.softmax_scale)
                                     : efficient_forward(own, q, k, v, scale.softmax_scale),
                           own.empty);
  }

  BackwardResult backward(const Prepared& prepared, const BackwardArgs& args) const override {
    const auto& own = prepared_as<SdpaCudaPrepared>(prepared, kId);
    if (nothing_to_do(args.q, args.k)) return empty_backward(args);
    const PositiveScale scale = make_positive(args.softmax_scale);
    const at::Tensor q = scale.apply(aligned_rows(args.q)), k = aligned_rows(args.k), v = aligned_rows(args.v);
    BackwardResult result = own.cudnn ? cudnn_backward(own, args, q, k, v, scale.softmax_scale)
                                      : efficient_backward(own, args, q, k, v, scale.softmax_scale);
    result.dq = scale.apply(result.dq);
    return result;
  }
};

}  // namespace

std::shared_ptr<const AttentionBackend> make_sdpa_cuda_backend() { return std::make_shared<SdpaCudaBackend>(); }

}  // namespace attnmux
