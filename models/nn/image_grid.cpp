#include "models/nn/image_grid.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace attnmux {

at::Tensor patch_positions(const std::vector<ImageGrid>& grids, int64_t merge) {
  std::vector<int64_t> positions;
  for (const ImageGrid& grid : grids) {
    for (int64_t frame = 0; frame < grid.frames; ++frame) {
      for (int64_t block_row = 0; block_row < grid.height; block_row += merge) {
        for (int64_t block_column = 0; block_column < grid.width; block_column += merge) {
          for (int64_t patch = 0; patch < merge * merge; ++patch) {
            positions.push_back(block_row + patch / merge);
            positions.push_back(block_column + patch % merge);
          }
        }
      }
    }
  }
  return at::tensor(positions, at::kLong).view({-1, 2});
}

std::vector<int64_t> frame_seqlens(const std::vector<ImageGrid>& grids) {
  std::vector<int64_t> seqlens;
  for (const ImageGrid& grid : grids) seqlens.insert(seqlens.end(), grid.frames, grid.height * grid.width);
  return seqlens;
}

WindowOrder order_by_windows(const std::vector<ImageGrid>& grids, int64_t merge, int64_t window) {
  std::vector<int64_t> index;
  WindowOrder order;
  int64_t first = 0;  // token of the frame
  for (const ImageGrid& grid : grids) {
    const int64_t rows = grid.height / merge, columns = grid.width / merge;
    for (int64_t frame = 0; frame < grid.frames; ++frame, first += rows * columns) {
      for (int64_t top = 0; top < rows; top += window) {
        for (int64_t left = 0; left < columns; left += window) {
          const int64_t bottom = std::min(top + window, rows), right = std::min(left + window, columns);
          for (int64_t row = top; row < bottom; ++row) {
            for (int64_t column = left; column < right; ++column) index.push_back(first + row * columns + column);
          }
          order.seqlens.push_back((bottom - top) * (right - left) * merge * merge);
        }
      }
    }
  }
  order.index = at::tensor(index, at::kLong);
  return order;
}

at::Tensor permute(const at::Tensor& x, const at::Tensor& index, int64_t unit) {
  return x.unflatten(0, {-1, unit}).index_select(0, index).flatten(0, 1);
}

}  // namespace attnmux
