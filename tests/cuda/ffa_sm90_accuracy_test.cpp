// The Hopper kernels against float64 on fresh random masks: errors at most twice those of attention written in PyTorch
// in the same dtype, gradients by autograd.
//
//   ATTNMUX_GPU_CASES=500 ATTNMUX_GPU_SEED=7 build/tests/ffa_sm90_accuracy_test
//
// By default few cases and a seed of the moment, which is printed. Held to it is the error of a whole tensor, in norm
// and at its worst element. A tensor below kLeastElements has too few rounding errors for the worst of them to be
// compared; its norm is. kSlack is what sums in fp32 differ by: a row of one key has gradients that are exactly 0 in
// PyTorch.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <map>
#include <random>
#include <string>

#include "attnmux/backend.h"
#include "ffa_sm90/ffa_backend.h"
#include "gpu.h"
#include "random_masks.h"

namespace attnmux::ffa_sm90 {
namespace {

constexpr double kFactor = 2;
constexpr double kSlack = 1e-5;
constexpr int64_t kLeastElements = 4096;

uint64_t number_from(const char* variable, uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

struct Error {
  double norm = 0;   // root of the mean square
  double worst = 0;  // infinite for NaN, and for an infinity where there should be none
};

Error error_of(const at::Tensor& actual, const at::Tensor& truth) {
  const at::Tensor difference = (actual.to(at::kDouble) - truth).masked_fill(actual.to(at::kDouble) == truth, 0).abs();
  if (difference.numel() == 0) return {};
  const double worst = difference.max().item<double>();
  if (!std::isfinite(worst)) return {.norm = std::numeric_limits<double>::infinity(), .worst = worst};
  return {.norm = difference.norm().item<double>() / std::sqrt(static_cast<double>(difference.numel())),
          .worst = worst};
}

// A tensor as callers may bring it.
at::Tensor random_tensor(testing::RandomMasks& random, int64_t tokens, int64_t heads, int64_t head_dim,
                         const at::TensorOptions& options) {
  switch (random.between(0, 5)) {
    case 0: return at::randn({heads, tokens, head_dim}, options).transpose(0, 1);
    case 1: return at::randn({tokens, 3 * heads, head_dim}, options).narrow(1, heads, heads);
    case 2:
      return at::randn({tokens * heads * head_dim + 1}, options)
          .narrow(0, 1, tokens * heads * head_dim)
          .view({tokens, heads, head_dim});
    case 3: return at::randn({tokens, heads, head_dim, 2}, options).select(3, 1);
    default: return at::randn({tokens, heads, head_dim}, options);
  }
}

TEST(FfaAccuracyTest, within_twice_the_error_of_plain_pytorch) {
  SKIP_WITHOUT_HOPPER();
  const uint64_t seed = number_from("ATTNMUX_GPU_SEED", std::random_device()());
  const uint64_t cases = number_from("ATTNMUX_GPU_CASES", 40);
  std::printf("seed %llu, %llu cases\n", static_cast<unsigned long long>(seed), static_cast<unsigned long long>(cases));
  at::globalContext().setAllowBF16ReductionCuBLAS(false, true);
  at::globalContext().setAllowFP16ReductionCuBLAS(false, true);
  testing::RandomMasks random(seed);
  at::manual_seed(seed);
  const auto backend = make_backend();
  std::map<std::string, std::pair<double, double>> largest;  // ratios by result: norm, worst element
  std::map<std::string, int> executed;
  for (uint64_t i = 0; i < cases; ++i) {
    const testing::MaskCase drawn = random.draw();
    const AttnMaskSpec& mask = drawn.mask;
    const int64_t head_dim = random.among<int64_t>({64, 128}), heads_kv = random.between(1, 3);
    const int64_t heads_q = heads_kv * random.among<int64_t>({1, 1, 2, 4});
    const auto dtype = random.among({at::kBFloat16, at::kHalf});
    const double relative_scale = random.among({1.0, 1.0, 1.0, 0.3, 2.0, -0.7, 0.0});
    const double scale = relative_scale / std::sqrt(static_cast<double>(head_dim));
    const bool deterministic = random.between(0, 1) == 1;
    SCOPED_TRACE(drawn.name + " " + std::to_string(mask.total_q()) + " x " + std::to_string(mask.total_k()) +
                 ", heads " + std::to_string(heads_q) + ":" + std::to_string(heads_kv) + ", head_dim " +
                 std::to_string(head_dim) + ", " + at::toString(dtype) + ", scale " + std::to_string(relative_scale) +
                 "/sqrt(head_dim)" + (deterministic ? ", deterministic" : "") + ", case " + std::to_string(i));
    const auto options = at::device(at::kCUDA).dtype(dtype);
    const at::Tensor q = random_tensor(random, mask.total_q(), heads_q, head_dim, options);
    const at::Tensor k = random_tensor(random, mask.total_k(), heads_kv, head_dim, options);
    const at::Tensor v = random_tensor(random, mask.total_k(), heads_kv, head_dim, options);
    const at::Tensor dout = random_tensor(random, mask.total_q(), heads_q, head_dim, options);
    const std::vector<at::Tensor> results = {at::empty(q.sizes(), options), at::empty(k.sizes(), options),
                                             at::empty({mask.total_q(), heads_q}, options.dtype(at::kFloat))};

    const auto prepared = backend->prepare(mask, {.heads_q = heads_q,
                                                  .heads_kv = heads_kv,
                                                  .head_dim = head_dim,
                                                  .head_dim_v = head_dim,
                                                  .dtype = dtype == at::kHalf ? DType::kFloat16 : DType::kBFloat16,
                                                  .device = DeviceKind::kCuda});
    testing::poison(results);
    ASSERT_TRUE(at::empty_like(q, at::MemoryFormat::Contiguous).isnan().all().item<bool>()) << "memory is not poisoned";
    const ForwardResult result = backend->forward(*prepared, {q, k, v, scale});
    testing::poison(results);
    const BackwardResult grads = backend->backward(*prepared, {.dout = dout,
                                                               .q = q,
                                                               .k = k,
                                                               .v = v,
                                                               .out = result.out,
                                                               .lse = result.lse,
                                                               .softmax_scale = scale,
                                                               .deterministic = deterministic});

    const at::Tensor attended = testing::attended_pairs(mask).to(at::kCUDA);
    const auto wide = [](const at::Tensor& tensor) { return tensor.to(at::kDouble); };
    const testing::DenseResult truth = testing::dense_attention(attended, wide(q), wide(k), wide(v), wide(dout), scale);
    const testing::DenseResult plain = testing::dense_attention(attended, q, k, v, dout, scale);
    const auto check = [&](const char* name, const at::Tensor& got, const at::Tensor& want, const at::Tensor& rough) {
      const Error error = error_of(got, want), allowed = error_of(rough, want);
      EXPECT_LE(error.norm, kFactor * allowed.norm + kSlack) << name;
      auto& [norm, worst] = largest[name];
      if (allowed.norm > kSlack) norm = std::max(norm, error.norm / allowed.norm);
      if (want.numel() < kLeastElements) return;
      EXPECT_LE(error.worst, kFactor * allowed.worst + kSlack) << name;
      if (allowed.worst > kSlack) worst = std::max(worst, error.worst / allowed.worst);
    };
    check("out", result.out, truth.out, plain.out);
    check("lse", result.lse, truth.lse, plain.lse);
    check("dq", grads.dq, truth.dq, plain.dq);
    check("dk", grads.dk, truth.dk, plain.dk);
    check("dv", grads.dv, truth.dv, plain.dv);
    ++executed[drawn.name];
  }
  std::printf("largest error relative to plain PyTorch's: in norm, at the worst element\n");
  for (const auto& [name, ratios] : largest)
    std::printf("  %-4s %.2f %.2f\n", name.c_str(), ratios.first, ratios.second);
  std::printf("masks:");
  for (const auto& [name, count] : executed) std::printf(" %s %d", name.c_str(), count);
  std::printf("\n");
}

}  // namespace
}  // namespace attnmux::ffa_sm90
