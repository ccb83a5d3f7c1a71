#include "ffa_sm90/ffa_backend.h"

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "attnmux/error.h"
#include "common/gates.h"
#include "common/prepared_as.h"
#include "ffa_sm90/prepared.h"

namespace attnmux::ffa_sm90 {
namespace {

constexpr std::string_view kId = "magi";

std::optional<Reason> built_head_dim(const AttentionRequest& request) {
  if (request.head_dim == 64 || request.head_dim == 128) return std::nullopt;
  return Reason{ReasonCode::kHeadDim, std::to_string(request.head_dim), "64 or 128 on CUDA", "choose another backend"};
}

// An unknown architecture (0) passes; prepare() looks at the GPU itself.
std::optional<Reason> hopper(const AttentionRequest& request) {
  if (request.device_arch == 90 || request.device_arch == 0) return std::nullopt;
  return Reason{ReasonCode::kDeviceArch, "sm_" + std::to_string(request.device_arch), "sm_90",
                "choose another backend on this GPU"};
}

std::optional<Reason> tokens_within_limit(const AttentionRequest& request) {
  if (request.max_tokens > kMaxTokens) {
    return Reason{ReasonCode::kLength, std::to_string(request.max_tokens) + " tokens",
                  "at most " + std::to_string(kMaxTokens) + " tokens", "shorten the packed sequence"};
  }
  if (items(request.max_tokens, request.heads_q) > kMaxItems) {
    return Reason{ReasonCode::kLength,
                  std::to_string(request.max_tokens) + " tokens of " + std::to_string(request.heads_q) + " heads",
                  "at most " + std::to_string(kMaxItems) + " pairs of 64 tokens and a head",
                  "shorten the packed sequence"};
  }
  return std::nullopt;
}

std::optional<Reason> heads_within_limit(const AttentionRequest& request) {
  if (request.heads_q <= kMaxHeads) return std::nullopt;
  return Reason{ReasonCode::kHeads, std::to_string(request.heads_q) + " query heads",
                "at most " + std::to_string(kMaxHeads), "split the heads over several calls"};
}

constexpr Gate kGates[] = {
    dtype_among<DType::kBFloat16, DType::kFloat16>,
    valid_heads,
    built_head_dim,
    equal_head_dims,
    heads_within_limit,
    tokens_within_limit,
    on_device<DeviceKind::kCuda>,
    hopper,
    no_softcap,
    no_attention_sink,
    no_dropout,
};

c10::Stream current_stream(const at::Device& device) {
  return c10::impl::VirtualGuardImpl(at::kCUDA).getStream(device);
}

cudaStream_t native(const c10::Stream& stream) { return static_cast<cudaStream_t>(stream.native_handle()); }

Element element_of(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kHalf ? Element::kFloat16 : Element::kBFloat16;
}

// The tensor, or a copy where the copy engine cannot address it.
at::Tensor addressable(const at::Tensor& tensor) {
  constexpr int64_t kElements = 8;  // 16 bytes
  const bool fits = tensor.stride(2) == 1 && tensor.stride(0) % kElements == 0 && tensor.stride(1) % kElements == 0 &&
                    tensor.stride(0) > 0 && tensor.stride(1) > 0 &&
                    reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 16 == 0;
  return fits ? tensor : tensor.clone(at::MemoryFormat::Contiguous);
}

TensorView view_of(const at::Tensor& tensor) {
  return {.data = const_cast<void*>(tensor.const_data_ptr()),
          .tokens = tensor.size(0),
          .heads = tensor.size(1),
          .head_dim = tensor.size(2),
          .token_stride = tensor.stride(0),
          .head_stride = tensor.stride(1)};
}

class FfaBackend final : public AttentionBackend {
 public:
  BackendInfo info() const override {
    return {.id = std::string(kId),
            .version = ATTNMUX_VERSION,
            .description = "flexible flash attention for every mask on Hopper GPUs"};
  }

  Support query(const AttentionRequest& request) const noexcept override { return run_gates(kGates, request); }

  std::shared_ptr<const Prepared> prepare(const AttnMaskSpec& mask, const AttentionShape& shape) const override {
    return std::make_shared<FfaPrepared>(mask, shape);
  }

  ForwardResult forward(const Prepared& prepared, const ForwardArgs& args) const override {
    const auto& own = prepared_as<FfaPrepared>(prepared, kId);
    check_call(own, args.q, args.k, args.softmax_scale);
    const auto fp32 = args.q.options().dtype(at::kFloat);
    if (args.q.size(0) == 0 || args.k.size(0) == 0) {
      return {.out = at::zeros(args.q.sizes(), args.q.options()),
              .lse = at::full({args.q.size(0), args.q.size(1)}, -std::numeric_limits<float>::infinity(), fp32)};
    }
    const c10::DeviceGuard guard(args.q.device());
    const c10::Stream stream = current_stream(args.q.device());
    own.used_on(stream);
    const at::Tensor q = addressable(args.q), k = addressable(args.k), v = addressable(args.v);
    const at::Tensor out = at::empty(q.sizes(), q.options());
    const at::Tensor lse = at::empty({q.size(0), q.size(1)}, fp32);
    const at::Tensor counter = at::empty({1}, fp32.dtype(at::kInt));
    ffa_sm90::forward({.element = element_of(q),
                       .q = view_of(q),
                       .k = view_of(k),
                       .v = view_of(v),
                       .out = view_of(out),
                       .lse = static_cast<float*>(lse.mutable_data_ptr()),
                       .counter = static_cast<int32_t*>(counter.mutable_data_ptr()),
                       .softmax_scale = static_cast<float>(args.softmax_scale),
                       .plan = own.forward_plan(),
                       .mark = own.mark()},
                      native(stream));
    return {.out = out, .lse = lse};
  }

  BackwardResult backward(const Prepared& prepared, const BackwardArgs& args) const override {
    const auto& own = prepared_as<FfaPrepared>(prepared, kId);
    check_call(own, args.q, args.k, args.softmax_scale);
    if (args.q.size(0) == 0 || args.k.size(0) == 0) {
      return {.dq = at::zeros(args.q.sizes(), args.q.options()),
              .dk = at::zeros(args.k.sizes(), args.k.options()),
              .dv = at::zeros(args.v.sizes(), args.v.options())};
    }
    const c10::DeviceGuard guard(args.q.device());
    const c10::Stream stream = current_stream(args.q.device());
    own.used_on(stream);
    const at::Tensor q = addressable(args.q), k = addressable(args.k), v = addressable(args.v);
    const at::Tensor out = addressable(args.out), dout = addressable(args.dout);
    const at::Tensor lse = args.lse.contiguous();
    const at::Tensor dq = at::empty(q.sizes(), q.options());
    const at::Tensor dk = at::empty(k.sizes(), k.options()), dv = at::empty(v.sizes(), v.options());
    const at::Tensor workspace = at::empty(
        {backward_workspace_bytes(q.size(0), q.size(1), q.size(2), args.deterministic)}, q.options().dtype(at::kByte));
    ffa_sm90::backward({.element = element_of(q),
                        .q = view_of(q),
                        .k = view_of(k),
                        .v = view_of(v),
                        .out = view_of(out),
                        .dout = view_of(dout),
                        .lse = static_cast<const float*>(lse.const_data_ptr()),
                        .dq = view_of(dq),
                        .dk = view_of(dk),
                        .dv = view_of(dv),
                        .workspace = workspace.mutable_data_ptr(),
                        .softmax_scale = static_cast<float>(args.softmax_scale),
                        .deterministic = args.deterministic,
                        .plan = own.backward_plan(),
                        .mark = own.mark()},
                       native(stream));
    return {.dq = dq, .dk = dk, .dv = dv};
  }

 private:
  static void check_call(const FfaPrepared& prepared, const at::Tensor& q, const at::Tensor& k, double softmax_scale) {
    const AttentionShape& shape = prepared.shape();
    const bool same = q.size(0) == prepared.total_q() && k.size(0) == prepared.total_k() &&
                      q.size(1) == shape.heads_q && k.size(1) == shape.heads_kv && q.size(2) == shape.head_dim &&
                      q.device().index() == shape.device_index;
    if (!same) {
      throw Error(ErrorCode::kInvalidArgument,
                  "magi: prepared for " + std::to_string(prepared.total_q()) + " queries, " +
                      std::to_string(prepared.total_k()) + " keys, " + std::to_string(shape.heads_q) + ":" +
                      std::to_string(shape.heads_kv) + " heads of " + std::to_string(shape.head_dim) + " on GPU " +
                      std::to_string(shape.device_index) + ", called with " + std::to_string(q.size(0)) + " queries, " +
                      std::to_string(k.size(0)) + " keys, " + std::to_string(q.size(1)) + ":" +
                      std::to_string(k.size(1)) + " heads of " + std::to_string(q.size(2)) + " on GPU " +
                      std::to_string(q.device().index()) + "; prepare the mask for this shape and device");
    }
    constexpr double kMaxScale = std::numeric_limits<float>::max() / 2;  // it is multiplied by log2(e)
    if (!(std::abs(softmax_scale) <= kMaxScale)) {
      throw Error(ErrorCode::kInvalidArgument, "magi: softmax_scale " + std::to_string(softmax_scale) +
                                                   "; the CUDA kernel takes finite ones of fp32's range");
    }
  }
};

}  // namespace

std::shared_ptr<const AttentionBackend> make_backend() { return std::make_shared<FfaBackend>(); }

}  // namespace attnmux::ffa_sm90
