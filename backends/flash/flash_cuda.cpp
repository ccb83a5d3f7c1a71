#include "flash/flash_cuda.h"

#include <ATen/ATen.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "attnmux/error.h"
#include "attnmux/mask_family.h"
#include "common/aten_tensors.h"
#include "common/dense_mask.h"
#include "common/gates.h"
#include "common/positive_scale.h"
#include "common/prepared_as.h"

namespace attnmux {
namespace {

constexpr std::string_view kId = "flash";

std::optional<Reason> head_dim_of_whole_loads(const AttentionRequest& request) {
  if (request.head_dim > 0 && request.head_dim % 8 == 0 && request.head_dim <= 256) return std::nullopt;
  return Reason{ReasonCode::kHeadDim, std::to_string(request.head_dim), "a multiple of 8 up to 256 on CUDA",
                "choose another backend for this module"};
}

constexpr Gate kGates[] = {
    masks_within<MaskFamily::kFull, MaskFamily::kCausal, MaskFamily::kVarlenFull, MaskFamily::kVarlenCausal,
                 MaskFamily::kSlidingWindow>,
    dtype_among<DType::kBFloat16, DType::kFloat16>,
    valid_heads,
    head_dim_of_whole_loads,
    equal_head_dims,
    int32_tokens,
    on_device<DeviceKind::kCuda>,
    at_least_arch<80>,
    no_deterministic_backward,
    single_rank,  // the stages of a context-parallel step bring masks of any family
    no_softcap,
    no_attention_sink,
    no_dropout,
};

struct FlashCudaPrepared final : Prepared {
  at::Tensor cu_seqlens_q, cu_seqlens_k;  // [documents + 1] int32, on the GPU
  int64_t max_q = 0, max_k = 0;           // tokens of the longest document
  bool is_causal = false;
  std::optional<int64_t> left, right;  // of a window
  at::Tensor empty;                    // [tokens_q] bool, rows without keys; undefined: none
};

int64_t longest(const std::vector<int64_t>& cu_seqlens) {
  int64_t most = 0;
  for (size_t i = 0; i + 1 < cu_seqlens.size(); ++i) most = std::max(most, cu_seqlens[i + 1] - cu_seqlens[i]);
  return most;
}

class FlashCudaBackend final : public AttentionBackend {
 public:
  BackendInfo info() const override {
    return {.id = std::string(kId),
            .version = ATTNMUX_VERSION,
            .description = "FlashAttention-2 of ATen: full, causal, windows, packed documents; linear memory"};
  }

  Support query(const AttentionRequest& request) const noexcept override { return run_gates(kGates, request); }

  std::shared_ptr<const Prepared> prepare(const AttnMaskSpec& mask, const AttentionShape& shape) const override {
    const std::optional<PackedDocuments> packed = packed_documents(mask);
    if (!packed) {
      throw Error(ErrorCode::kOutOfEnvelope, "flash: a mask of family " + std::string(to_string(classify(mask))) +
                                                 "; this backend takes packed documents that are full, causal or a "
                                                 "window. Choose another backend for this mask.");
    }
    const at::Device device = device_of(shape);
    const auto upload = [&](const std::vector<int64_t>& values) { return at::tensor(values, at::kInt).to(device); };
    auto prepared = std::make_shared<FlashCudaPrepared>();
    prepared->cu_seqlens_q = upload(packed->cu_seqlens_q);
    prepared->cu_seqlens_k = upload(packed->cu_seqlens_k);
    // For documents of a single query the kernel would turn the heads of a group into queries; a longer bound is as
    // good a bound.
    prepared->max_q = std::max<int64_t>(longest(packed->cu_seqlens_q), 2);
    prepared->max_k = longest(packed->cu_seqlens_k);
    prepared->is_causal = packed->family == MaskFamily::kCausal || packed->family == MaskFamily::kVarlenCausal;
    if (packed->family == MaskFamily::kSlidingWindow) {
      prepared->left = packed->left;
      prepared->right = packed->right;
    }
    const at::Tensor empty = empty_rows(mask);
    if (empty.any().item<bool>()) prepared->empty = empty.to(device);
    return prepared;
  }

  ForwardResult forward(const Prepared& prepared, const ForwardArgs& args) const override {
    const auto& own = prepared_as<FlashCudaPrepared>(prepared, kId);
    if (nothing_to_do(args.q, args.k)) return empty_forward(args.q);
    const PositiveScale scale = make_positive(args.softmax_scale);
    const auto result = at::_flash_attention_forward(
        scale.apply(aligned_rows(args.q)), aligned_rows(args.k), aligned_rows(args.v), own.cu_seqlens_q,
        own.cu_seqlens_k, own.max_q, own.max_k, /*dropout_p=*/0.0, own.is_causal, /*return_debug_mask=*/false,
        scale.softmax_scale, own.left, own.right);
    return with_empty_rows({.out = std::get<0>(result), .lse = std::get<1>(result).transpose(0, 1)}, own.empty);
  }

  BackwardResult backward(const Prepared& prepared, const BackwardArgs& args) const override {
    const auto& own = prepared_as<FlashCudaPrepared>(prepared, kId);
    if (nothing_to_do(args.q, args.k)) return empty_backward(args);
    const PositiveScale scale = make_positive(args.softmax_scale);
    const at::Tensor no_dropout_state = at::empty({2}, args.q.options().dtype(at::kUInt64));
    const auto [dq, dk, dv] = at::_flash_attention_backward(
        aligned_rows(args.dout), scale.apply(aligned_rows(args.q)), aligned_rows(args.k), aligned_rows(args.v),
        aligned_rows(args.out), kernel_lse(args.lse), own.cu_seqlens_q, own.cu_seqlens_k, own.max_q, own.max_k,
        /*dropout_p=*/0.0, own.is_causal, no_dropout_state, at::empty({}, args.q.options().dtype(at::kUInt64)),
        scale.softmax_scale, own.left, own.right);
    return {.dq = scale.apply(dq), .dk = dk, .dv = dv};
  }
};

}  // namespace

std::shared_ptr<const AttentionBackend> make_flash_cuda_backend() { return std::make_shared<FlashCudaBackend>(); }

}  // namespace attnmux
