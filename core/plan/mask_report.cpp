#include "attnmux/mask_report.h"

#include <algorithm>
#include <chrono>

#include "attnmux/error.h"

namespace attnmux {
namespace {

int64_t rows_without_keys(const AttnMaskSpec& mask) {
  // Disjoint slices are sorted by their first row, and each of their rows attends a key.
  int64_t covered = 0, empty = 0;
  for (const AttnSlice& slice : mask.disjoint_slices()) {
    empty += std::max<int64_t>(0, slice.q.begin - covered);
    covered = std::max(covered, slice.q.end);
  }
  return empty + mask.total_q() - covered;
}

TilePlanSummary summary_of(const TilePlan& plan) {
  TilePlanSummary summary{.shape = plan.shape,
                          .q_tiles = plan.num_q_tiles,
                          .k_tiles = plan.num_k_tiles,
                          .runs = static_cast<int64_t>(plan.run_list.size()),
                          .distinct_masks = int64_t{plan.masks.num_intervals} + plan.masks.num_bits};
  for (const TileRun& run : plan.run_list) {
    (run.mask_id == kUnmasked ? summary.unmasked_tiles : summary.partial_tiles) += run.count;
  }
  const int64_t visited = summary.unmasked_tiles + summary.partial_tiles;
  summary.empty_tiles = summary.q_tiles * summary.k_tiles - visited;
  summary.bytes = static_cast<int64_t>(
      plan.run_offsets.size() * sizeof(int32_t) + plan.run_list.size() * sizeof(TileRun) +
      plan.masks.intervals.size() * sizeof(RowInterval) + plan.masks.bits.size() * sizeof(uint64_t));
  if (visited > 0) {
    summary.efficiency = static_cast<double>(plan.area) / (static_cast<double>(visited) * plan.shape.q * plan.shape.k);
  }
  return summary;
}

}  // namespace

MaskReport make_mask_report(const AttnMaskSpec& mask, TileShape shape, int repetitions) {
  if (repetitions < 1) throw Error(ErrorCode::kInvalidArgument, "make_mask_report: repetitions must be at least 1");
  MaskReport report{.total_q = mask.total_q(),
                    .total_k = mask.total_k(),
                    .area = mask.area(),
                    .hash = mask.hash(),
                    .family = classify(mask),
                    .rows_without_keys = rows_without_keys(mask),
                    .overlaps = mask.overlaps()};
  const double pairs = static_cast<double>(report.total_q) * static_cast<double>(report.total_k);
  report.density = pairs > 0 ? static_cast<double>(report.area) / pairs : 0;
  std::vector<double> times;
  for (int i = 0; i < repetitions; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const TilePlan plan = make_tile_plan(mask, shape);
    times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
    if (i == 0) report.tiles = summary_of(plan);
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  report.plan_ms = times[times.size() / 2];
  return report;
}

}  // namespace attnmux
