// Comparing tensors in tests: a failure says how many elements differ, the first and the worst, with both values.
//
//   EXPECT_TRUE(close(actual, expected, {.absolute = 1e-5, .relative = 1e-5}));
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
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

// |got - want|; infinite where only one is infinite or any is NaN, for infinities equal themselves and NaN nothing.
inline double error_of(double got, double want) {
  if (got == want) return 0;
  const double error = std::abs(got - want);
  return std::isfinite(error) ? error : std::numeric_limits<double>::infinity();
}

inline at::Tensor flat_double(const at::Tensor& tensor) {
  return tensor.detach().to(at::kDouble).contiguous().view(-1);
}

// Every |actual - expected| <= tolerance, elementwise; tolerance broadcasts to the shape of `expected`.
inline ::testing::AssertionResult close_within(const at::Tensor& actual, const at::Tensor& expected,
                                               const at::Tensor& tolerance) {
  if (!actual.defined() || !expected.defined()) return ::testing::AssertionFailure() << "undefined tensor";
  if (actual.sizes() != expected.sizes()) {
    return ::testing::AssertionFailure() << "shape " << actual.sizes() << ", expected " << expected.sizes();
  }
  const at::Tensor a = flat_double(actual), e = flat_double(expected);
  const at::Tensor t = flat_double(tolerance.expand(expected.sizes()));
  const double* got = a.const_data_ptr<double>();
  const double* want = e.const_data_ptr<double>();
  const double* allowed = t.const_data_ptr<double>();
  int64_t wrong = 0, first = -1, worst = -1;
  double worst_excess = 0;
  for (int64_t i = 0; i < a.numel(); ++i) {
    const double error = error_of(got[i], want[i]);
    if (error == 0 || (error <= allowed[i] && std::isfinite(error))) continue;
    ++wrong;
    const double excess = error / allowed[i];
    if (first < 0) first = i;
    if (worst < 0 || excess > worst_excess) worst = i, worst_excess = excess;
  }
  if (wrong == 0) return ::testing::AssertionSuccess();
  std::ostringstream text;
  text.precision(9);
  const auto show = [&](const char* name, int64_t i) {
    text << "; " << name << ' ' << index_text(i, actual.sizes()) << ": got " << got[i] << ", expected " << want[i]
         << " +- " << allowed[i];
  };
  text << wrong << " of " << a.numel() << " elements differ";
  show("first", first);
  show("worst", worst);
  return ::testing::AssertionFailure() << text.str();
}

// Every |actual - expected| <= absolute + relative * |expected|.
inline ::testing::AssertionResult close(const at::Tensor& actual, const at::Tensor& expected, Tolerance tolerance) {
  if (!expected.defined()) return ::testing::AssertionFailure() << "undefined tensor";
  return close_within(actual, expected,
                      expected.detach().to(at::kDouble).abs() * tolerance.relative + tolerance.absolute);
}

// Largest error of any element; 0 for empty tensors. REQUIRES: equal shapes.
inline double max_error(const at::Tensor& actual, const at::Tensor& expected) {
  const at::Tensor a = flat_double(actual), e = flat_double(expected);
  double largest = 0;
  for (int64_t i = 0; i < a.numel(); ++i) {
    largest = std::max(largest, error_of(a.const_data_ptr<double>()[i], e.const_data_ptr<double>()[i]));
  }
  return largest;
}

}  // namespace attnmux::testing
