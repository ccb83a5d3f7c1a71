// The Hopper kernels against float64 on fresh random masks: errors at most twice those of attention written in PyTorch
// in the same dtype, gradients by autograd.
//
//   ATTNMUX_GPU_CASES=500 ATTNMUX_GPU_SEED=7 build/tests/ffa_sm90_accuracy_test
//
// By default few cases and a seed of the moment, which is printed. A case is a mask, heads, head_dim, dtype and scale,
// with kDraws sets of tensors: what is compared are the errors over all of them, in norm and at the worst element, of
// out, lse, dq, dk and dv each. (The worst of one small tensor is a matter of luck, PyTorch's as ours; below
// kLeastElements it is left out.) kSlack is what sums in fp32 differ by: a row of one key has gradients that are
// exactly 0 in PyTorch.
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
constexpr double kSlack = 5e-5;
constexpr int kDraws = 3;
constexpr int64_t kLeastElements = 4096;

uint64_t number_from(const char* variable, uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

// Of one tensor, or of several of one shape.
struct Error {
  double squares = 0;
  double worst = 0;  // infinite for NaN, and for an infinity where there should be none
  int64_t elements = 0;

  double norm() const { return elements == 0 ? 0 : std::sqrt(squares / static_cast<double>(elements)); }
  void add(const at::Tensor& actual, const at::Tensor& truth) {
    const at::Tensor wide = actual.to(at::kDouble);
    const at::Tensor difference = (wide - truth).masked_fill(wide == truth, 0);  // -inf is -inf
    if (difference.numel() == 0) return;
    const double largest = difference.abs().max().item<double>();
    squares += std::pow(difference.norm().item<double>(), 2);
    worst = std::max(worst, largest == largest ? largest : std::numeric_limits<double>::infinity());
    elements += difference.numel();
  }
};

Error error_of(const at::Tensor& actual, const at::Tensor& truth) {
  Error error;
  error.add(actual, truth);
  return error;
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

// Everything that one call reads.
struct Inputs {
  at::Tensor q, k, v, dout;
};

struct Results {
  ForwardResult forward;
  BackwardResult backward;
};

// Outputs are poisoned first.
Results run(const AttnMaskSpec& mask, const Inputs& inputs, double scale, bool deterministic) {
  const auto backend = make_backend();
  const auto& [q, k, v, dout] = inputs;
  const auto prepared =
      backend->prepare(mask, {.heads_q = q.size(1),
                              .heads_kv = k.size(1),
                              .head_dim = q.size(2),
                              .head_dim_v = q.size(2),
                              .dtype = q.scalar_type() == at::kHalf ? DType::kFloat16 : DType::kBFloat16,
                              .device = DeviceKind::kCuda});
  const std::vector<at::Tensor> outputs = {at::empty(q.sizes(), q.options()), at::empty(k.sizes(), q.options()),
                                           at::empty({q.size(0), q.size(1)}, q.options().dtype(at::kFloat))};
  testing::poison(outputs);
  EXPECT_TRUE(at::empty(q.sizes(), q.options()).isnan().all().item<bool>()) << "memory is not poisoned";
  const ForwardResult result = backend->forward(*prepared, {q, k, v, scale});
  testing::poison(outputs);
  return {result, backend->backward(*prepared, {dout, q, k, v, result.out, result.lse, scale, deterministic})};
}

// Attention by PyTorch in `dtype`.
testing::DenseResult dense(const at::Tensor& attended, const Inputs& inputs, double scale, at::ScalarType dtype) {
  return testing::dense_attention(attended, inputs.q.to(dtype), inputs.k.to(dtype), inputs.v.to(dtype),
                                  inputs.dout.to(dtype), scale);
}

// There dS cancels, and rowsum(dout * out) from a rounded out would cost as much as all that PyTorch rounds.
TEST(FfaAccuracyTest, rows_of_two_keys_below_plain_pytorch) {
  SKIP_WITHOUT_HOPPER();
  const AttnMaskSpec mask = full_mask(500, 2);
  const at::Tensor attended = testing::attended_pairs(mask).to(at::kCUDA);
  for (const auto dtype : {at::kBFloat16, at::kHalf}) {
    for (const int64_t head_dim : {64, 128}) {
      SCOPED_TRACE(std::string(at::toString(dtype)) + ", head_dim " + std::to_string(head_dim));
      const auto options = at::device(at::kCUDA).dtype(dtype);
      const auto normal = [&](int64_t tokens) { return at::randn({tokens, 8, head_dim}, options); };
      const Inputs inputs = {normal(500), normal(2), normal(2), normal(500)};
      const double scale = 2 / std::sqrt(static_cast<double>(head_dim));
      const testing::DenseResult truth = dense(attended, inputs, scale, at::kDouble);
      const testing::DenseResult plain = dense(attended, inputs, scale, dtype);
      const BackwardResult got = run(mask, inputs, scale, /*deterministic=*/false).backward;
      EXPECT_LE(error_of(got.dq, truth.dq).norm(), 0.8 * error_of(plain.dq, truth.dq).norm()) << "dq";
      EXPECT_LE(error_of(got.dk, truth.dk).norm(), 0.8 * error_of(plain.dk, truth.dk).norm()) << "dk";
    }
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
    const auto tensor = [&](int64_t tokens, int64_t heads) {
      return random_tensor(random, tokens, heads, head_dim, options);
    };
    const at::Tensor attended = testing::attended_pairs(mask).to(at::kCUDA);
    std::map<std::string, std::pair<Error, Error>> errors;  // by result: ours, PyTorch's
    for (int draw = 0; draw < kDraws; ++draw) {
      const Inputs inputs = {tensor(mask.total_q(), heads_q), tensor(mask.total_k(), heads_kv),
                             tensor(mask.total_k(), heads_kv), tensor(mask.total_q(), heads_q)};
      const Results got = run(mask, inputs, scale, deterministic);
      const testing::DenseResult truth = dense(attended, inputs, scale, at::kDouble);
      const testing::DenseResult plain = dense(attended, inputs, scale, dtype);
      const auto add = [&](const char* name, const at::Tensor& ours, const at::Tensor& theirs, const at::Tensor& want) {
        errors[name].first.add(ours, want);
        errors[name].second.add(theirs, want);
      };
      add("out", got.forward.out, plain.out, truth.out);
      add("lse", got.forward.lse, plain.lse, truth.lse);
      add("dq", got.backward.dq, plain.dq, truth.dq);
      add("dk", got.backward.dk, plain.dk, truth.dk);
      add("dv", got.backward.dv, plain.dv, truth.dv);
    }
    for (const auto& [name, pair] : errors) {
      const auto& [ours, theirs] = pair;
      EXPECT_LE(ours.norm(), kFactor * theirs.norm() + kSlack) << name;
      auto& [norm, worst] = largest[name];
      if (theirs.norm() > kSlack) norm = std::max(norm, ours.norm() / theirs.norm());
      if (ours.elements < kDraws * kLeastElements) continue;
      EXPECT_LE(ours.worst, kFactor * theirs.worst + kSlack) << name;
      if (theirs.worst > kSlack) worst = std::max(worst, ours.worst / theirs.worst);
    }
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
