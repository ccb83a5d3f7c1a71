#include "models/nn/mrope_positions.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <string>

#include "attnmux/error.h"

namespace attnmux {
namespace {

// The three rows, one token after another.
struct Rows {
  std::vector<int64_t> time, height, width;
  void push(int64_t t, int64_t h, int64_t w) {
    time.push_back(t);
    height.push_back(h);
    width.push_back(w);
  }
};

[[noreturn]] void fail(const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument,
              "M-RoPE positions: " + what + "; each image stands for its own placeholders");
}

}  // namespace

at::Tensor mrope_positions(const ModelConfig& config, const at::Tensor& input_ids, const std::vector<int64_t>& seqlens,
                           const std::vector<ImageGrid>& grids) {
  const at::Tensor packed = input_ids.contiguous();
  const int64_t* ids = packed.const_data_ptr<int64_t>();
  const int64_t merge = config.vision.value().spatial_merge_size;
  Rows rows;
  size_t image = 0;
  int64_t begin = 0;
  for (const int64_t length : seqlens) {
    const int64_t end = begin + length;
    int64_t position = 0;
    for (int64_t token = begin; token < end;) {
      if (ids[token] != config.image_token_id) {
        rows.push(position, position, position);
        ++position;
        ++token;
        continue;
      }
      if (image == grids.size()) fail("token " + std::to_string(token) + " belongs to no image");
      const ImageGrid& grid = grids[image++];
      const int64_t height = grid.height / merge, width = grid.width / merge, count = grid.frames * height * width;
      for (int64_t i = 0; i < count; ++i, ++token) {
        if (token >= end || ids[token] != config.image_token_id) {
          fail("image " + std::to_string(image - 1) + " makes " + std::to_string(count) + " tokens, input_ids hold " +
               std::to_string(i) + " for it");
        }
        rows.push(position + i / (height * width), position + i / width % height, position + i % width);
      }
      position += std::max(height, width);
    }
    begin = end;
  }
  if (image != grids.size()) {
    fail(std::to_string(grids.size()) + " images, but placeholders for " + std::to_string(image));
  }
  return at::stack(
      {at::tensor(rows.time, at::kLong), at::tensor(rows.height, at::kLong), at::tensor(rows.width, at::kLong)});
}

}  // namespace attnmux
