#include "models/data/resize.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace attnmux {
namespace {

constexpr int kWeightBits = 22;

// Keys' cubic convolution with a = -0.5.
double cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

// The inputs that one output is made of.
struct Taps {
  int64_t first = 0;
  std::vector<int32_t> weights;
};

std::vector<Taps> taps_of(int64_t inputs, int64_t outputs) {
  const double scale = static_cast<double>(inputs) / static_cast<double>(outputs);
  const double stretch = std::max(scale, 1.0);  // of the filter: wider where the image shrinks
  const double support = 2 * stretch;
  std::vector<Taps> all(outputs);
  for (int64_t output = 0; output < outputs; ++output) {
    const double center = (static_cast<double>(output) + 0.5) * scale;
    const auto first = std::max<int64_t>(static_cast<int64_t>(center - support + 0.5), 0);
    const auto last = std::min(static_cast<int64_t>(center + support + 0.5), inputs);
    std::vector<double> weights;
    double sum = 0;
    for (int64_t input = first; input < last; ++input) {
      weights.push_back(cubic((static_cast<double>(input) - center + 0.5) / stretch));
      sum += weights.back();
    }
    all[output].first = first;
    for (const double weight : weights) {
      all[output].weights.push_back(static_cast<int32_t>(std::lround(weight / sum * (1 << kWeightBits))));
    }
  }
  return all;
}

// Along the middle dimension: [outer, inputs, inner] -> [outer, outputs, inner].
std::vector<uint8_t> resize_axis(const uint8_t* data, int64_t outer, int64_t inputs, int64_t inner, int64_t outputs) {
  const std::vector<Taps> all = taps_of(inputs, outputs);
  std::vector<uint8_t> result(outer * outputs * inner);
  uint8_t* to = result.data();
  for (int64_t row = 0; row < outer; ++row) {
    for (const Taps& taps : all) {
      for (int64_t i = 0; i < inner; ++i) {
        const uint8_t* from = data + (row * inputs + taps.first) * inner + i;
        int32_t sum = 1 << (kWeightBits - 1);
        for (const int32_t weight : taps.weights) {
          sum += *from * weight;
          from += inner;
        }
        *to++ = static_cast<uint8_t>(std::clamp(sum >> kWeightBits, 0, 255));
      }
    }
  }
  return result;
}

}  // namespace

at::Tensor resize_bicubic(const at::Tensor& image, int64_t new_height, int64_t new_width) {
  const int64_t height = image.size(0), width = image.size(1), channels = image.size(2);
  const uint8_t* data = image.const_data_ptr<uint8_t>();
  std::vector<uint8_t> pixels(data, data + image.numel());
  if (new_width != width) pixels = resize_axis(pixels.data(), height, width, channels, new_width);
  if (new_height != height) pixels = resize_axis(pixels.data(), 1, height, new_width * channels, new_height);
  return at::tensor(at::ArrayRef<uint8_t>(pixels), at::kByte).view({new_height, new_width, channels});
}

}  // namespace attnmux
