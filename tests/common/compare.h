// Comparing tensors in tests: a failure says how many elements differ, the first and the worst, with both values.
//
//   EXPECT_TRUE(close(actual, expected, {.absolute = 1e-5, .relative = 1e-5}));
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <sstream>
#include <string>

namespace attnmux::testing {

struct Tolerance {
  double absolute = 0;
  double relative = 0;  // of the expected value
};

// Index into `shape` of the element at `flat`, as "[3, 0, 17]".
inline std::string index_text(int64_t flat, at::IntArrayRef shape) {
  std::string text = "]";
  for (int64_t i = static_cast<int64_t>(shape.size()) - 1; i >= 0; --i) {
    text = std::to_string(flat % shape[i]) + (text == "]" ? "" : ", ") + text;
    flat /= shape[i];
  }
  return "[" + text;
}

// Every |actual - expected| <= absolute + relative * |expected|; NaN equals nothing, infinities equal themselves.
inline ::testing::AssertionResult close(const at::Tensor& actual, const at::Tensor& expected, Tolerance tolerance) {
  if (!actual.defined() || !expected.defined()) return ::testing::AssertionFailure() << "undefined tensor";
  if (actual.sizes() != expected.sizes()) {
    return ::testing::AssertionFailure() << "shape " << actual.sizes() << ", expected " << expected.sizes();
  }
  const at::Tensor a = actual.detach().to(at::kDouble).contiguous();
  const at::Tensor e = expected.detach().to(at::kDouble).contiguous();
  const double* got = a.const_data_ptr<double>();
  const double* want = e.const_data_ptr<double>();
  int64_t wrong = 0, first = -1, worst = -1;
  double worst_excess = -1;
  for (int64_t i = 0; i < a.numel(); ++i) {
    if (got[i] == want[i]) continue;
    const double error = std::abs(got[i] - want[i]);
    const double excess = error / (tolerance.absolute + tolerance.relative * std::abs(want[i]));
    if (excess <= 1 && std::isfinite(want[i])) continue;
    ++wrong;
    if (first < 0) first = i;
    if (worst < 0 || std::isnan(excess) || excess > worst_excess) worst = i, worst_excess = excess;
  }
  if (wrong == 0) return ::testing::AssertionSuccess();
  std::ostringstream text;
  text.precision(9);
  const auto show = [&](const char* name, int64_t i) {
    text << "; " << name << ' ' << index_text(i, actual.sizes()) << ": got " << got[i] << ", expected " << want[i];
  };
  text << wrong << " of " << a.numel() << " elements differ (absolute " << tolerance.absolute << ", relative "
       << tolerance.relative << ")";
  show("first", first);
  show("worst", worst);
  return ::testing::AssertionFailure() << text.str();
}

}  // namespace attnmux::testing
