#include "sdpa/sdpa_backend.h"

#include <ATen/ATen.h>

#include <limits>
#include <string_view>

#include "common/aten_flash.h"
#include "common/dense_mask.h"
#include "common/gates.h"
#include "common/prepared_as.h"

namespace attnmux {
namespace {

constexpr std::string_view kId = "sdpa";
constexpr double kInfinity = std::numeric_limits<double>::infinity();

constexpr Gate kGates[] = {
    dtype_among<DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64>,
    valid_heads,
    valid_head_dims,
    equal_head_dims,
    at_most_tokens<kMaxDenseTokens>,
    on_device<DeviceKind::kCpu>,
    no_softcap,
    no_attention_sink,
    no_dropout,
};

// Kept as bool, a quarter of the additive fp32 mask, for a cache may hold many.
struct SdpaPrepared final : Prepared {
  at::Tensor refused;  // [tokens_q, tokens_k] bool, true = not attended; undefined for a full mask
};

AtenFlashOptions kernel_options(const SdpaPrepared& prepared, const at::Tensor& q) {
  if (!prepared.refused.defined()) return {};
  return {.attn_mask = at::zeros(prepared.refused.sizes(), q.options()).masked_fill_(prepared.refused, -kInfinity)};
}

class SdpaBackend final : public AttentionBackend {
 public:
  BackendInfo info() const override {
    return {.id = std::string(kId),
            .version = ATTNMUX_VERSION,
            .description = "ATen scaled dot product attention with a dense mask; quadratic memory"};
  }

  Support query(const AttentionRequest& request) const noexcept override { return run_gates(kGates, request); }

  std::shared_ptr<const Prepared> prepare(const AttnMaskSpec& mask, const AttentionShape&) const override {
    auto prepared = std::make_shared<SdpaPrepared>();
    if (mask.area() < mask.total_q() * mask.total_k()) prepared->refused = dense_mask(mask, kId).logical_not_();
    return prepared;
  }

  ForwardResult forward(const Prepared& prepared, const ForwardArgs& args) const override {
    const auto& own = prepared_as<SdpaPrepared>(prepared, kId);
    ForwardResult result = aten_flash_forward(args, kernel_options(own, args.q));
    if (own.refused.defined()) result.lse.masked_fill_(own.refused.all(1, /*keepdim=*/true), -kInfinity);
    return result;
  }

  BackwardResult backward(const Prepared& prepared, const BackwardArgs& args) const override {
    return aten_flash_backward(args, kernel_options(prepared_as<SdpaPrepared>(prepared, kId), args.q));
  }
};

}  // namespace

std::shared_ptr<const AttentionBackend> make_sdpa_backend() { return std::make_shared<SdpaBackend>(); }

}  // namespace attnmux
