// The fused CPU functions of models/nn against their references, in fp64.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "attnmux/error.h"
#include "models/nn/linear_cross_entropy.h"
#include "models/nn/rms_norm.h"
#include "models/nn/rope.h"
#include "models/nn/simd.h"
#include "models/nn/swiglu.h"
#include "tests/common/compare.h"

namespace attnmux {
namespace {

using testing::close;

at::Tensor random(at::IntArrayRef shape, uint64_t seed, double scale = 1.0) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  return at::randn(shape, generator, at::TensorOptions(at::kFloat)) * scale;
}

struct Outcome {
  at::Tensor out;
  std::vector<at::Tensor> grads;
};

using Op = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

// Runs `op` on copies of the inputs in `dtype`, then backward with a fixed random gradient.
Outcome run(const Op& op, const std::vector<at::Tensor>& inputs, at::ScalarType dtype) {
  std::vector<at::Tensor> leaves;
  for (const at::Tensor& input : inputs) {
    leaves.push_back(input.to(dtype, /*non_blocking=*/false, /*copy=*/true).requires_grad_(true));
  }
  at::Tensor out = op(leaves);
  const at::Tensor gradient = out.dim() == 0 ? at::tensor(1.5, dtype) : random(out.sizes(), 99).to(dtype);
  out.backward(gradient);
  Outcome outcome{out, {}};
  for (const at::Tensor& leaf : leaves) outcome.grads.push_back(leaf.grad());
  return outcome;
}

void expect_same(const Op& fused, const Op& reference, const std::vector<at::Tensor>& inputs) {
  const Outcome got = run(fused, inputs, at::kFloat);
  const Outcome want = run(reference, inputs, at::kDouble);
  EXPECT_TRUE(close(got.out, want.out, {.absolute = 2e-6, .relative = 5e-6})) << "output";
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_TRUE(close(got.grads[i], want.grads[i], {.absolute = 2e-5, .relative = 5e-6})) << "gradient of input " << i;
  }
}

struct Shape {
  std::string name;
  int64_t rows;
  int64_t columns;
};

class FusedOps : public ::testing::TestWithParam<Shape> {};

TEST_P(FusedOps, RmsNorm) {
  const auto [name, rows, columns] = GetParam();
  expect_same([](const auto& in) { return rms_norm(in[0], in[1], 1e-5); },
              [](const auto& in) { return rms_norm_reference(in[0], in[1], 1e-5); },
              {random({rows, columns}, 1), random({columns}, 2)});
}

TEST_P(FusedOps, SwiGlu) {
  const auto [name, rows, columns] = GetParam();
  expect_same([](const auto& in) { return swiglu(in[0], in[1]); },
              [](const auto& in) { return swiglu_reference(in[0], in[1]); },
              {random({rows, columns}, 3, 4.0), random({rows, columns}, 4)});
}

TEST_P(FusedOps, RopeRotatesHalves) {
  const auto [name, rows, columns] = GetParam();
  const int64_t head_dim = 2 * ((columns + 1) / 2);
  const at::Tensor positions = at::arange(rows, at::kLong);
  const RopeTable table = make_rope_table({}, head_dim, positions, at::kFloat);
  const RopeTable wide{table.cos.to(at::kDouble), table.sin.to(at::kDouble)};
  expect_same([&](const auto& in) { return apply_rope(in[0], table); },
              [&](const auto& in) { return apply_rope_reference(in[0], wide); }, {random({rows, 3, head_dim}, 5)});
}

TEST_P(FusedOps, LinearCrossEntropy) {
  const auto [name, rows, columns] = GetParam();
  const int64_t vocab = 301;
  at::Tensor labels = at::arange(rows, at::kLong).mul(7).remainder(vocab);
  labels.index_put_({at::arange(0, rows, 3, at::kLong)}, at::scalar_tensor(kIgnoredLabel, at::kLong));
  if (rows == 1) labels.fill_(5);
  const int64_t valid = labels.ne(kIgnoredLabel).sum().item<int64_t>();
  expect_same([&](const auto& in) { return linear_cross_entropy(in[0], in[1], labels, valid); },
              [&](const auto& in) { return linear_cross_entropy_reference(in[0], in[1], labels, valid); },
              {random({rows, columns}, 6), random({vocab, columns}, 7)});
}

INSTANTIATE_TEST_SUITE_P(Shapes, FusedOps,
                         ::testing::Values(Shape{"one_row", 1, 64}, Shape{"odd", 7, 33}, Shape{"one_column", 5, 1},
                                           Shape{"hidden_576", 130, 576}, Shape{"rows_beyond_blocks", 17, 48}),
                         [](const auto& info) { return info.param.name; });

TEST(LinearCrossEntropy, ChunksJoinToTheWhole) {
  // A chunk holds 512 rows of this vocabulary: 513 rows are two chunks, the last one short. A larger vocabulary with
  // fewer rows would compare matrix products instead: sums of millions of fp32 terms differ with their order.
  const int64_t rows = 513;
  const int64_t vocab = kLogitChunkBytes / 4 / (rows - 1);
  const at::Tensor hidden = random({rows, 2}, 8);
  const at::Tensor weight = random({vocab, 2}, 9);
  const at::Tensor labels = at::arange(rows, at::kLong).mul(100);
  expect_same([&](const auto& in) { return linear_cross_entropy(in[0], in[1], labels, rows); },
              [&](const auto& in) { return linear_cross_entropy_reference(in[0], in[1], labels, rows); },
              {hidden, weight});
  std::vector<int64_t> firsts;
  const at::Tensor losses = token_losses(hidden, weight, labels, [&](int64_t first, const at::Tensor& logits) {
    firsts.push_back(first);
    EXPECT_TRUE(close(logits, at::linear(hidden.narrow(0, first, logits.size(0)), weight), {.absolute = 1e-5}));
  });
  EXPECT_EQ(firsts, (std::vector<int64_t>{0, rows - 1}));
  const at::Tensor whole = at::log_softmax(at::linear(hidden, weight).to(at::kDouble), -1);
  EXPECT_TRUE(close(losses, whole.gather(1, labels.unsqueeze(1)).squeeze(1).neg(), {.absolute = 1e-5}));
}

TEST(LinearCrossEntropy, HasNoGradientWhereNoneIsWanted) {
  const at::Tensor hidden = random({4, 8}, 1).requires_grad_(true);
  const at::Tensor weight = random({16, 8}, 2);
  const at::Tensor labels = at::arange(4, at::kLong);
  linear_cross_entropy(hidden, weight, labels, 4).backward();
  EXPECT_TRUE(hidden.grad().defined());
  EXPECT_FALSE(weight.grad().defined());
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(linear_cross_entropy(hidden, weight, labels, 4).requires_grad());
}

TEST(LinearCrossEntropy, LargeLogitsStayFinite) {
  const at::Tensor hidden = at::full({2, 1}, 1e4);
  const at::Tensor weight = at::tensor({1.0f, 0.5f, -1.0f}).unsqueeze(1);
  const at::Tensor losses = token_losses(hidden, weight, at::tensor({0, 1}, at::kLong), {});
  EXPECT_TRUE(close(losses, at::tensor({0.0, 5000.0}), {.absolute = 1e-3}));
}

TEST(LinearCrossEntropy, NamesTheLabelThatIsOutOfRange) {
  const at::Tensor labels = at::tensor({1, 2, 16, -3}, at::kLong);
  try {
    linear_cross_entropy(random({4, 8}, 1), random({16, 8}, 2), labels, 4);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find("labels[2] = 16; allowed are 0 to 15"), std::string::npos) << error.what();
  }
  EXPECT_THROW(linear_cross_entropy(random({1, 8}, 1), random({16, 8}, 2), at::full({1}, -100, at::kLong), 0), Error);
}

TEST(FastExp, IsWithinOneUnitOverItsRange) {
  double worst = 0;
  for (float x = -87.0f; x < 87.2f; x += 0.00137f) {
    const double want = std::exp(static_cast<double>(x));
    worst = std::max(worst, std::abs(fast_exp(x) - want) / want);
  }
  EXPECT_LT(worst, 1.5e-7);
  EXPECT_TRUE(std::isnan(fast_exp(std::nanf(""))));
  EXPECT_GT(fast_exp(1000.0f), 8e37f);
  EXPECT_LT(fast_exp(-1000.0f), 1e-37f);
}

TEST(Rope, Llama3KeepsShortWavelengthsAndDividesLongOnes) {
  const RopeConfig plain{.theta = 10000.0};
  RopeConfig scaled = plain;
  scaled.type = RopeType::kLlama3;
  scaled.factor = 8;
  scaled.low_freq_factor = 1;
  scaled.high_freq_factor = 4;
  scaled.original_max_position_embeddings = 512;
  const at::Tensor before = rope_inverse_frequencies(plain, 64);
  const at::Tensor after = rope_inverse_frequencies(scaled, 64);
  EXPECT_EQ(after[0].item<float>(), before[0].item<float>());
  EXPECT_FLOAT_EQ(after[31].item<float>(), before[31].item<float>() / 8);
  EXPECT_TRUE(at::all(after <= before).item<bool>());
}

}  // namespace
}  // namespace attnmux
