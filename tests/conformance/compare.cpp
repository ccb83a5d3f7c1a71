#include "conformance/compare.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <sstream>
#include <vector>

namespace attnmux::conformance {
namespace {

constexpr int64_t kTile = 64;
constexpr double kOfPlainError = 2;    // of the plain implementation's error
constexpr double kRoundings = 4;       // of each term
constexpr double kFrobeniusShare = 8;  // elements of a tile that may use all of these roundings, as a root

// Scores and lse are kept in fp32 by every implementation that is worth its name.
DType computed_in(DType dtype) { return dtype == DType::kFloat64 ? dtype : DType::kFloat32; }

// Elements that broke one bound.
struct Wrong {
  int64_t count = 0, first = -1, worst = -1;
  double worst_excess = 0, first_allowed = 0, worst_allowed = 0;
  void add(int64_t at, double error, double allowed) {
    ++count;
    const double excess = error / std::max(allowed, 1e-300);
    if (first < 0) first = at, first_allowed = allowed;
    if (worst < 0 || excess > worst_excess) worst = at, worst_excess = excess, worst_allowed = allowed;
  }
};

class Comparer {
 public:
  Comparer(const Comparison& c, CaseResult& result)
      : c_(c),
        result_(result),
        got_(flat(c.got)),
        want_(flat(c.want.value)),
        low_(flat(c.low)),
        magnitude_(flat(c.want.magnitude)),
        by_scores_(flat(c.want.by_scores)),
        by_flushing_(flat(c.want.by_flushing)),
        tokens_(c.want.value.size(0)),
        heads_(c.want.value.size(1)),
        dim_(c.want.value.dim() == 3 ? c.want.value.size(2) : 1) {
    if (c.empty_rows.defined()) empty_ = c.empty_rows.to(at::kByte).contiguous();
  }

  void run() {
    if (!reference_is_finite()) return;
    empty_rows();
    const double largest = magnitude_.numel() == 0 ? 0 : magnitude_.max().item<double>();
    for (int64_t head = 0; head < heads_; ++head) {
      for (int64_t begin = 0; begin < tokens_; begin += kTile) tile(head, begin, largest);
    }
    report(not_finite_, Check::kFinite, "not finite");
    report(max_, Check::kBoundMax, "beyond twice the error of a plain implementation and four roundings");
    report(cap_wrong_, Check::kCap, "beyond the absolute limit");
    if (!frobenius_.empty()) result_.fail(Check::kBoundFrobenius, frobenius_);
  }

 private:
  static at::Tensor flat(const at::Tensor& tensor) {
    return tensor.detach().cpu().to(at::kDouble).contiguous().view(-1);
  }
  static double value(const at::Tensor& flat, int64_t i) { return flat.const_data_ptr<double>()[i]; }
  bool is_empty(int64_t token) const { return empty_.defined() && empty_.const_data_ptr<uint8_t>()[token] != 0; }
  int64_t index(int64_t token, int64_t head, int64_t i) const { return (token * heads_ + head) * dim_ + i; }

  std::string place(int64_t flat) const {
    std::vector<int64_t> place{flat / dim_ / heads_, flat / dim_ % heads_};
    if (c_.want.value.dim() == 3) place.push_back(flat % dim_);
    return c10::str(at::IntArrayRef(place));
  }

  template <class Function>
  void for_each(int64_t head, int64_t begin, const Function& function) const {
    for (int64_t token = begin; token < std::min(tokens_, begin + kTile); ++token) {
      if (is_empty(token)) continue;
      for (int64_t i = 0; i < dim_; ++i) function(index(token, head, i));
    }
  }

  bool reference_is_finite() {
    for (int64_t i = 0; i < want_.numel(); ++i) {
      if (is_empty(i / dim_ / heads_)) continue;
      if (std::isfinite(value(want_, i)) && std::isfinite(value(magnitude_, i))) continue;
      result_.suite_error(c_.name + place(i) + " of the reference is " + std::to_string(value(want_, i)));
      return false;
    }
    return true;
  }

  void empty_rows() {
    Wrong wrong;
    for (int64_t i = 0; i < want_.numel(); ++i) {
      if (is_empty(i / dim_ / heads_) && !(value(got_, i) == c_.empty_value)) wrong.add(i, 1, 1);
    }
    if (wrong.count == 0) return;
    std::ostringstream text;
    text << c_.name << ": " << wrong.count << " elements of rows that attend nothing are wrong; first "
         << place(wrong.first) << ": got " << value(got_, wrong.first) << ", expected " << c_.empty_value;
    result_.fail(c_.empty_check, text.str());
  }

  void tile(int64_t head, int64_t begin, double largest) {
    double low_max = 0, low_square = 0, rounding = 0, flushing = 0, square = 0, want_square = 0;
    for_each(head, begin, [&](int64_t i) {
      // The plain implementation may overflow where a good one does not; then the limits below are all that is left.
      const double error = std::abs(value(low_, i) - value(want_, i));
      if (std::isfinite(error)) low_max = std::max(low_max, error), low_square += error * error;
      rounding = std::max(rounding, unit_roundoff(c_.dtype) * value(magnitude_, i) +
                                        unit_roundoff(computed_in(c_.dtype)) * value(by_scores_, i));
      flushing = std::max(flushing, value(by_flushing_, i));
    });
    const double lost = smallest_normal(c_.dtype) * flushing;
    const double roundings = kRoundings * rounding + lost;
    const double allowed = kOfPlainError * low_max + roundings;
    const double limit = c_.cap * largest + lost;
    for_each(head, begin, [&](int64_t i) {
      const double error = std::abs(value(got_, i) - value(want_, i));
      if (!std::isfinite(error)) {
        not_finite_.add(i, 1, 1);
        return;
      }
      square += error * error;
      want_square += value(want_, i) * value(want_, i);
      if (error > allowed) max_.add(i, error, allowed);
      if (error > limit) cap_wrong_.add(i, error, limit);
    });
    const double frobenius = kOfPlainError * std::sqrt(low_square) + kFrobeniusShare * roundings;
    if (std::sqrt(square) > frobenius && frobenius_.empty()) {
      std::ostringstream text;
      text << c_.name << ", head " << head << ", tokens [" << begin << ", " << std::min(tokens_, begin + kTile)
           << "): relative Frobenius error " << std::sqrt(square / std::max(want_square, 1e-300)) << ", allowed "
           << frobenius / std::sqrt(std::max(want_square, 1e-300));
      frobenius_ = text.str();
    }
  }

  void report(const Wrong& wrong, Check check, const char* what) {
    if (wrong.count == 0) return;
    std::ostringstream text;
    text.precision(9);
    text << c_.name << ": " << wrong.count << " of " << want_.numel() << " elements " << what;
    const auto show = [&](const char* which, int64_t i, double allowed) {
      text << "; " << which << " " << place(i) << ": got " << value(got_, i) << ", expected " << value(want_, i)
           << " +- " << allowed;
    };
    show("first", wrong.first, wrong.first_allowed);
    if (wrong.worst != wrong.first) show("worst", wrong.worst, wrong.worst_allowed);
    result_.fail(check, text.str());
  }

  const Comparison& c_;
  CaseResult& result_;
  at::Tensor got_, want_, low_, magnitude_, by_scores_, by_flushing_, empty_;
  int64_t tokens_, heads_, dim_;
  Wrong not_finite_, max_, cap_wrong_;
  std::string frobenius_;
};

}  // namespace

double cap_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat64: return 1e-9;
    case DType::kFloat32: return 1e-3;
    case DType::kFloat16: return 2e-2;
    case DType::kBFloat16: return 6e-2;
  }
  return 0;
}

double lse_cap_of(DType dtype) {
  const bool half = dtype == DType::kFloat16 || dtype == DType::kBFloat16;
  return half ? 5e-3 : cap_of(dtype);
}

double unit_roundoff(DType dtype) {
  switch (dtype) {
    case DType::kFloat64: return 0x1p-53;
    case DType::kFloat32: return 0x1p-24;
    case DType::kFloat16: return 0x1p-11;
    case DType::kBFloat16: return 0x1p-8;
  }
  return 0;
}

double smallest_normal(DType dtype) { return computed_in(dtype) == DType::kFloat64 ? 0x1p-1022 : 0x1p-126; }

void compare(const Comparison& comparison, CaseResult& result) { Comparer(comparison, result).run(); }

}  // namespace attnmux::conformance
