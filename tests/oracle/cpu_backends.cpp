#include "oracle/cpu_backends.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "flash/flash_backend.h"
#include "reference/reference_backend.h"
#include "sdpa/sdpa_backend.h"
#include "tiled_cpu/magi_backend.h"

namespace attnmux::testing {
namespace {

bool has_empty_rows(const AttnMaskSpec& mask) {
  for (int64_t q = 0; q < mask.total_q(); ++q) {
    bool any = false;
    for (int64_t k = 0; k < mask.total_k() && !any; ++k) any = mask.allowed(q, k);
    if (!any) return true;
  }
  return false;
}

}  // namespace

bool CpuBackend::takes(MaskFamily family) const {
  return !only_packed_documents || (family != MaskFamily::kSlidingWindow && family != MaskFamily::kArbitrary);
}

std::vector<CpuBackend> cpu_backends() {
  std::vector<CpuBackend> backends = {
      {.name = "reference", .backend = make_reference_backend()},
      {.name = "sdpa", .backend = make_sdpa_backend(), .only_equal_head_dims = true},
      {.name = "flash", .backend = make_flash_backend(), .only_packed_documents = true, .only_equal_head_dims = true},
      {.name = "magi", .backend = make_magi_backend()},
  };
  for (auto [name, isa] :
       {std::pair{"magi_generic", CpuIsa::kGeneric}, {"magi_avx2", CpuIsa::kAvx2}, {"magi_avx512", CpuIsa::kAvx512}}) {
    if (isa < best_cpu_isa()) backends.push_back({.name = name, .backend = make_magi_backend(isa)});
  }
  return backends;
}

AttentionResults run(const AttentionBackend& backend, const AttnMaskSpec& mask, const OracleInputs& inputs) {
  const std::shared_ptr<const Prepared> prepared = backend.prepare(mask, shape_of(inputs));
  const ForwardResult forward =
      backend.forward(*prepared, {.q = inputs.q, .k = inputs.k, .v = inputs.v, .softmax_scale = inputs.softmax_scale});
  const BackwardResult backward = backend.backward(*prepared, {.dout = inputs.dout,
                                                               .q = inputs.q,
                                                               .k = inputs.k,
                                                               .v = inputs.v,
                                                               .out = forward.out,
                                                               .lse = forward.lse,
                                                               .softmax_scale = inputs.softmax_scale});
  return {.out = forward.out, .lse = forward.lse, .dq = backward.dq, .dk = backward.dk, .dv = backward.dv};
}

DType dtype_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kBFloat16: return DType::kBFloat16;
    case at::kHalf: return DType::kFloat16;
    case at::kDouble: return DType::kFloat64;
    default: return DType::kFloat32;
  }
}

at::ScalarType scalar_type_of(DType dtype) {
  switch (dtype) {
    case DType::kBFloat16: return at::kBFloat16;
    case DType::kFloat16: return at::kHalf;
    case DType::kFloat64: return at::kDouble;
    default: return at::kFloat;
  }
}

AttentionShape shape_of(const OracleInputs& inputs) {
  return {.heads_q = inputs.q.size(1),
          .heads_kv = inputs.k.size(1),
          .head_dim = inputs.q.size(2),
          .head_dim_v = inputs.v.size(2),
          .dtype = dtype_of(inputs.q)};
}

AttentionRequest request_of(const AttnMaskSpec& mask, const OracleInputs& inputs) {
  const AttentionShape shape = shape_of(inputs);
  return {.masks = {classify(mask)},
          .cross_lengths = mask.total_q() != mask.total_k(),
          .empty_rows = has_empty_rows(mask),
          .dtype = shape.dtype,
          .heads_q = shape.heads_q,
          .heads_kv = shape.heads_kv,
          .head_dim = shape.head_dim,
          .head_dim_v = shape.head_dim_v,
          .max_tokens = std::max(mask.total_q(), mask.total_k()),
          .training = true};
}

}  // namespace attnmux::testing
