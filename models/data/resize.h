// Resizing an image as Pillow does, bit for bit: bicubic, antialiased, rows first and columns then.
#pragma once

#include <ATen/core/Tensor.h>

namespace attnmux {

// image: [height, width, channels] uint8, contiguous -> [new_height, new_width, channels] uint8. Each pass is rounded
// to 8 bits, which matters where the filter overshoots. Weights are fixed-point numbers of 22 bits.
at::Tensor resize_bicubic(const at::Tensor& image, int64_t new_height, int64_t new_width);

}  // namespace attnmux
