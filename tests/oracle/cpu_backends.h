// Every backend for the CPU, with what it should take written down a second time, and one call of one of them.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "attnmux/backend.h"
#include "attnmux/mask_family.h"
#include "oracle/attention_oracle.h"

namespace attnmux::testing {

struct CpuBackend {
  std::string name;
  std::shared_ptr<const AttentionBackend> backend;
  bool only_packed_documents = false;  // no window, no mask beyond documents in order
  bool only_equal_head_dims = false;

  bool takes(MaskFamily family) const;
  bool takes(MaskFamily family, int64_t head_dim, int64_t head_dim_v) const {
    return takes(family) && (head_dim == head_dim_v || !only_equal_head_dims);
  }
};

// How GoogleTest shows the parameter of a test.
inline void PrintTo(const CpuBackend& backend, std::ostream* out) { *out << backend.name; }

// reference, sdpa, flash, magi, and magi with the kernels that an older processor would get.
std::vector<CpuBackend> cpu_backends();

struct AttentionResults {
  at::Tensor out, lse, dq, dk, dv;
};

// prepare, forward, and backward with forward's results.
AttentionResults run(const AttentionBackend& backend, const AttnMaskSpec& mask, const OracleInputs& inputs);

DType dtype_of(const at::Tensor& tensor);
at::ScalarType scalar_type_of(DType dtype);
AttentionShape shape_of(const OracleInputs& inputs);

// What a training step with these tensors asks of a backend; pairs are looked up in the mask one by one.
AttentionRequest request_of(const AttnMaskSpec& mask, const OracleInputs& inputs);

}  // namespace attnmux::testing
