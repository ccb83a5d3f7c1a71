#include "models/data/deal_images.h"

#include <algorithm>
#include <numeric>

#include "models/nn/image_grid.h"

namespace attnmux {
namespace {

double attended_pairs(const std::vector<int64_t>& seqlens) {
  return std::accumulate(seqlens.begin(), seqlens.end(), 0.0, [](double sum, int64_t length) {
    return sum + static_cast<double>(length) * static_cast<double>(length);
  });
}

}  // namespace

double tower_flops(const VisionConfig& vision, const ImageGrid& grid) {
  const auto patches = static_cast<double>(grid.frames * grid.height * grid.width);
  const auto hidden = static_cast<double>(vision.hidden_size);
  const auto intermediate = static_cast<double>(vision.intermediate_size);
  const auto depth = static_cast<double>(vision.depth);
  const auto full_layers = static_cast<double>(std::count(vision.full_layers.begin(), vision.full_layers.end(), true));
  const double projections = depth * patches * (4 * hidden * hidden + 3 * hidden * intermediate);
  const double full = full_layers * attended_pairs(frame_seqlens({grid}));
  const double windows =
      (depth - full_layers) *
      attended_pairs(order_by_windows({grid}, vision.spatial_merge_size, vision.merged_window).seqlens);
  return 2 * (projections + 2 * hidden * (full + windows));
}

std::vector<std::vector<int64_t>> deal_images(const VisionConfig& vision, const std::vector<ImageGrid>& grids,
                                              int32_t ranks) {
  std::vector<double> costs;
  for (const ImageGrid& grid : grids) costs.push_back(tower_flops(vision, grid));
  std::vector<int64_t> costliest_first(grids.size());
  std::iota(costliest_first.begin(), costliest_first.end(), 0);
  std::stable_sort(costliest_first.begin(), costliest_first.end(),
                   [&](int64_t a, int64_t b) { return costs[a] > costs[b]; });

  std::vector<std::vector<int64_t>> images(ranks);
  std::vector<double> work(ranks, 0.0);
  for (const int64_t image : costliest_first) {
    const auto rank = std::min_element(work.begin(), work.end()) - work.begin();
    images[rank].push_back(image);
    work[rank] += costs[image];
  }
  for (std::vector<int64_t>& own : images) std::sort(own.begin(), own.end());
  return images;
}

}  // namespace attnmux
