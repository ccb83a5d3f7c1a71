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
  int64_t ranks = 2;                // at least 2
  int64_t repetitions = 20;         // timed, after one that is not
  std::vector<DistAttnPlan> plans;  // timed as well, to be held against predict(); for as many ranks
};

struct ExchangeTime {
  int64_t tokens = 0;  // that each rank sends to others in equal parts, and receives
  double seconds = 0;
};

struct PassTimes {
  double forward_s = 0;
  double backward_s = 0;
};

// Times run from the first rank's begin to the last one's end, and are medians of the repetitions. All things are
// measured in turns, plans included, so that what else the machine does slows them alike.
struct Calibration {
  CostModel model;
  std::vector<ExchangeTime> exchanges;  // up to the mask's keys, ascending
  double forward_s = 0;                 // attention by the mask
  double backward_s = 0;
  std::vector<PassTimes> plans;
};

// Bandwidth and latency are the line through the exchanges that is off by the least share of each. Calls: attention of
// one query; rows: the mask's queries against a few keys, merged into another part; rates: attention by the mask, less
// these; overlap: attention with the largest exchange under way. Throws Error(kInvalidArgument) for options that cannot
// be, Error(kUnknownBackend), Error(kUnsupported) with the backend's reasons.
ATTNMUX_API Calibration calibrate(const CalibrationOptions& options, const PluginRegistry& registry);

}  // namespace attnmux
