// "sdpa" on CUDA: the kernels behind PyTorch's scaled_dot_product_attention that return an lse.
//
// A full mask, or a causal one with as many keys as queries, runs without a matrix: in bf16 and fp16 with head_dim up
// to 128 on cuDNN's kernel, else on ATen's memory-efficient one. Every other mask runs on the memory-efficient kernel
// with an additive matrix, which prepare() makes and keeps in GPU memory: 2 bytes a pair (4 in fp32), attended or not.
// SDPA's math kernel returns no lse and is not used, hence no fp64.
#pragma once

#include <memory>

#include "attnmux/backend.h"

namespace attnmux {

// Loads and answers query() on a machine without a GPU, too.
std::shared_ptr<const AttentionBackend> make_sdpa_cuda_backend();

}  // namespace attnmux
