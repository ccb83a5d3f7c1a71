// The oracle that backends are compared with: cases worked out by hand, and finite differences.
#include "oracle/attention_oracle.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "attnmux/mask.h"
#include "common/compare.h"
#include "oracle/plain_attention.h"

namespace attnmux::testing {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

at::Tensor column(std::initializer_list<double> values) {
  return at::tensor(std::vector<double>(values), at::kDouble).view({-1, 1, 1});
}

double at(const at::Tensor& tensor, int64_t token) { return tensor.select(0, token).item<double>(); }

const AttnMaskSpec& causal2() {
  static const AttnMaskSpec mask({{.q = {0, 2}, .k = {0, 2}, .type = MaskType::kCausal}}, 2, 2);
  return mask;
}

// q = (1, ln 3), k = (0, 1), v = (4, 8), scale 1. Row 0 sees key 0 alone. Row 1 has scores (0, ln 3), hence
// exp-sums 1 + 3, p = (1/4, 3/4), out = 7. With dout = (1, 1): dp = (4, 8), delta = 7, ds = (1/4 * -3, 3/4 * 1).
TEST(AttentionOracle, CausalTwoByTwoByHand) {
  const OracleResult result = oracle_attention(causal2(), {.q = column({1, std::log(3.0)}),
                                                           .k = column({0, 1}),
                                                           .v = column({4, 8}),
                                                           .dout = column({1, 1}),
                                                           .softmax_scale = 1});
  EXPECT_NEAR(at(result.out.value, 0), 4, 1e-14);
  EXPECT_NEAR(at(result.out.value, 1), 7, 1e-14);
  EXPECT_NEAR(at(result.lse.value, 0), 0, 1e-14);
  EXPECT_NEAR(at(result.lse.value, 1), std::log(4.0), 1e-14);
  EXPECT_NEAR(at(result.dq.value, 0), 0, 1e-14);
  EXPECT_NEAR(at(result.dq.value, 1), 0.75, 1e-14);
  EXPECT_NEAR(at(result.dk.value, 0), -0.75 * std::log(3.0), 1e-14);
  EXPECT_NEAR(at(result.dk.value, 1), 0.75 * std::log(3.0), 1e-14);
  EXPECT_NEAR(at(result.dv.value, 0), 1.25, 1e-14);
  EXPECT_NEAR(at(result.dv.value, 1), 0.75, 1e-14);
  // Magnitudes add up what the values cancel: row 1 of dq is 1/4 * (4 + 7) * 0 + 3/4 * (8 + 7) * 1.
  EXPECT_NEAR(at(result.dq.magnitude, 1), 11.25, 1e-14);
}

// The same numbers, reached with half the q and twice the scale.
TEST(AttentionOracle, SoftmaxScaleMultipliesScoresAndGradients) {
  const OracleResult result = oracle_attention(causal2(), {.q = column({0.5, std::log(3.0) / 2}),
                                                           .k = column({0, 1}),
                                                           .v = column({4, 8}),
                                                           .dout = column({1, 1}),
                                                           .softmax_scale = 2});
  EXPECT_NEAR(at(result.out.value, 1), 7, 1e-14);
  EXPECT_NEAR(at(result.lse.value, 1), std::log(4.0), 1e-14);
  EXPECT_NEAR(at(result.dq.value, 1), 1.5, 1e-14);
  EXPECT_NEAR(at(result.dk.value, 1), 0.75 * std::log(3.0), 1e-14);
}

TEST(AttentionOracle, RowWithoutKeys) {
  const AttnMaskSpec mask({{.q = {1, 2}, .k = {0, 2}}}, 2, 2);
  const OracleResult result = oracle_attention(
      mask,
      {.q = column({5, 0}), .k = column({1, 2}), .v = column({4, 8}), .dout = column({9, 1}), .softmax_scale = 1});
  EXPECT_EQ(at(result.out.value, 0), 0);
  EXPECT_EQ(at(result.lse.value, 0), -kInfinity);
  EXPECT_EQ(at(result.dq.value, 0), 0);
  EXPECT_NEAR(at(result.out.value, 1), 6, 1e-14);
  EXPECT_NEAR(at(result.dv.value, 0), 0.5, 1e-14);  // row 1 alone: dout of row 0 goes nowhere
}

// Two query heads on one key/value head: each head attends for itself, dk and dv are summed.
TEST(AttentionOracle, QueryHeadsShareKeysAndValues) {
  const AttnMaskSpec mask({{.q = {0, 1}, .k = {0, 2}}}, 1, 2);
  const at::Tensor q = at::tensor({0.0, std::log(3.0)}, at::kDouble).view({1, 2, 1});
  const OracleResult result = oracle_attention(
      mask,
      {.q = q, .k = column({0, 1}), .v = column({4, 8}), .dout = at::ones({1, 2, 1}, at::kDouble), .softmax_scale = 1});
  EXPECT_NEAR(result.out.value[0][0].item<double>(), 6, 1e-14);
  EXPECT_NEAR(result.out.value[0][1].item<double>(), 7, 1e-14);
  EXPECT_NEAR(at(result.dv.value, 0), 0.5 + 0.25, 1e-14);
  EXPECT_NEAR(at(result.dv.value, 1), 0.5 + 0.75, 1e-14);
  EXPECT_NEAR(at(result.dk.value, 1), 0.75 * std::log(3.0), 1e-14);  // head 0 has q = 0
}

// d/dx of sum(dout * out) by central differences, for every element of q, k and v.
TEST(AttentionOracle, GradientsMatchFiniteDifferences) {
  at::manual_seed(7);
  const AttnMaskSpec mask({{.q = {0, 3}, .k = {0, 4}, .type = MaskType::kCausal},
                           {.q = {2, 5}, .k = {1, 6}, .type = MaskType::kInvCausal},
                           {.q = {5, 6}, .k = {5, 6}}},
                          7, 6);
  const auto options = at::TensorOptions().dtype(at::kDouble);
  OracleInputs inputs = {.q = at::randn({7, 4, 3}, options),
                         .k = at::randn({6, 2, 3}, options),
                         .v = at::randn({6, 2, 2}, options),
                         .dout = at::randn({7, 4, 2}, options),
                         .softmax_scale = 0.7};
  const OracleResult result = oracle_attention(mask, inputs);
  const auto loss = [&] { return (oracle_attention(mask, inputs).out.value * inputs.dout).sum().item<double>(); };
  constexpr double kStep = 1e-5;
  for (auto [name, tensor, gradient] : {std::tuple{"dq", inputs.q, result.dq.value},
                                        {"dk", inputs.k, result.dk.value},
                                        {"dv", inputs.v, result.dv.value}}) {
    at::Tensor numeric = at::empty_like(tensor);
    double* x = tensor.data_ptr<double>();
    for (int64_t i = 0; i < tensor.numel(); ++i) {
      const double was = x[i];
      x[i] = was + kStep;
      const double above = loss();
      x[i] = was - kStep;
      const double below = loss();
      x[i] = was;
      numeric.data_ptr<double>()[i] = (above - below) / (2 * kStep);
    }
    EXPECT_TRUE(close(gradient, numeric, {.absolute = 1e-8})) << name;
    EXPECT_GT(gradient.abs().max().item<double>(), 0.05) << name << " is all but zero: the check says nothing";
  }
}

// The yardstick for low precisions is the same attention where no precision is lost.
TEST(AttentionOracle, PlainAttentionInFloat64IsTheSame) {
  at::manual_seed(8);
  const AttnMaskSpec mask({{.q = {0, 5}, .k = {0, 6}, .type = MaskType::kCausal}}, 6, 6);
  const auto options = at::TensorOptions().dtype(at::kDouble);
  const OracleInputs inputs = {.q = at::randn({6, 4, 3}, options),
                               .k = at::randn({6, 2, 3}, options),
                               .v = at::randn({6, 2, 2}, options),
                               .dout = at::randn({6, 4, 2}, options),
                               .softmax_scale = 0.7};
  const OracleResult want = oracle_attention(mask, inputs);
  const PlainResult got = plain_attention(mask, inputs);
  EXPECT_TRUE(close_within(got.out, want.out.value, want.out.magnitude * 1e-13));
  EXPECT_TRUE(close_within(got.lse, want.lse.value, want.lse.magnitude * 1e-13));
  EXPECT_TRUE(close_within(got.dq, want.dq.value, want.dq.magnitude * 1e-13));
  EXPECT_TRUE(close_within(got.dk, want.dk.value, want.dk.magnitude * 1e-13));
  EXPECT_TRUE(close_within(got.dv, want.dv.value, want.dv.magnitude * 1e-13));
}

TEST(Close, CountsAndNamesFirstAndWorst) {
  const at::Tensor want = at::zeros({2, 3}, at::kDouble);
  at::Tensor got = want.clone();
  got[0][1] = 0.5;
  got[1][2] = -2.0;
  got[1][0] = 1e-9;
  EXPECT_STREQ(
      close(got, want, {.absolute = 1e-6}).message(),
      "2 of 6 elements differ; first [0, 1]: got 0.5, expected 0 +- 1e-06; worst [1, 2]: got -2, expected 0 +- "
      "1e-06");
}

TEST(Close, InfinitiesEqualThemselvesAndNanNothing) {
  const auto scalar = [](double value) { return at::full({1}, value, at::kDouble); };
  const Tolerance wide = {.absolute = kInfinity, .relative = 1};
  EXPECT_TRUE(close(scalar(-kInfinity), scalar(-kInfinity), {}));
  EXPECT_FALSE(close(scalar(kInfinity), scalar(-kInfinity), wide));
  EXPECT_FALSE(close(scalar(0), scalar(-kInfinity), wide));
  EXPECT_FALSE(close(scalar(std::nan("")), scalar(0), wide));
  EXPECT_FALSE(close(scalar(std::nan("")), scalar(std::nan("")), wide));
}

}  // namespace
}  // namespace attnmux::testing
