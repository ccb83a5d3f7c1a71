// What can be said about a mask before anything runs: `attnmux plan`, and the mask's part of a run's report.
//
//   MaskReport report = make_mask_report(mask, {.q = 128, .k = 128}, /*repetitions=*/5);
//
// Its page: plan_report.h. Pure function, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "attnmux/export.h"
#include "attnmux/mask.h"
#include "attnmux/mask_family.h"
#include "attnmux/tile_plan.h"

namespace attnmux {

struct TilePlanSummary {
  TileShape shape;
  int64_t q_tiles = 0, k_tiles = 0;
  int64_t runs = 0;
  int64_t unmasked_tiles = 0;  // every pair attended
  int64_t partial_tiles = 0;   // some pairs attended
  int64_t empty_tiles = 0;     // never visited
  int64_t distinct_masks = 0;  // stored partial tiles
  int64_t bytes = 0;           // of lists and stored masks
  double efficiency = 0;       // attended pairs / pairs of the visited tiles
};

struct MaskReport {
  int64_t total_q = 0, total_k = 0;
  int64_t area = 0;
  double density = 0;  // area / (total_q * total_k)
  Hash128 hash;
  MaskFamily family = MaskFamily::kArbitrary;
  int64_t rows_without_keys = 0;
  std::vector<std::string> overlaps;  // as AttnMaskSpec::overlaps()
  TilePlanSummary tiles;
  double plan_ms = 0;  // median time to make the tile plan
};

ATTNMUX_API MaskReport make_mask_report(const AttnMaskSpec& mask, TileShape shape, int repetitions);

}  // namespace attnmux
