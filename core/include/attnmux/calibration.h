// The cost model of this machine, measured: ranks as threads of one process, all of them busy at once.
//
//   Calibration c = calibrate({.mask = causal_mask(2048, 2048), .backend = "magi", .size = size}, registry);
//   write(to_json(c.model));
//
// Runs one thread for each rank and returns when they have ended.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "attnmux/cost_model.h"
#include "attnmux/export.h"
#include "attnmux/mask.h"
#include "attnmux/registry.h"

namespace attnmux {

struct CalibrationOptions {
  AttnMaskSpec mask;    // what each rank computes
  std::string backend;  // id
  AttentionSize size;
  int64_t ranks = 2;         // at least 2
  int64_t repetitions = 20;  // timed, after one that is not
};

struct ExchangeTime {
  int64_t tokens = 0;  // that each rank sends to others in equal parts, and receives
  double seconds = 0;
};

// Times are those of the slowest rank, the least of all repetitions: other work on the machine only ever adds to one.
// All things are measured in turns.
struct Calibration {
  CostModel model;
  std::vector<ExchangeTime> exchanges;  // up to the mask's keys, ascending
  double forward_s = 0;                 // attention by the mask
  double backward_s = 0;
};

// Bandwidth and latency are the line through the exchanges that is off by the least share of each. Calls: attention of
// one query; rows: the mask's queries against a few keys, merged into another part; rates: attention by the mask, less
// these; overlap: attention with the largest exchange under way. Throws Error(kInvalidArgument) for options that cannot
// be, Error(kUnknownBackend), Error(kUnsupported) with the backend's reasons.
ATTNMUX_API Calibration calibrate(const CalibrationOptions& options, const PluginRegistry& registry);

// What attention by each of these plans takes on the same ranks, to be held against predict(). options.mask is not
// used. REQUIRES: plans for options.ranks.
struct PassTimes {
  double forward_s = 0;
  double backward_s = 0;
};
ATTNMUX_API std::vector<PassTimes> time_plans(const std::vector<DistAttnPlan>& plans, const CalibrationOptions& options,
                                              const PluginRegistry& registry);

}  // namespace attnmux
