// What a mask would take on many ranks, by this library's plan and by two others. Nothing runs.
//
//   // attnmux, ring, all-gather
//   for (const SchemeStep& step : simulate_schemes(mask, 64, {}, kAutoOverlap, model, shape)) ...
//
// A step is one layer's attention, forward and backward. Pure function, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "attnmux/cost_model.h"
#include "attnmux/dispatch_plan.h"
#include "attnmux/export.h"
#include "attnmux/mask.h"

namespace attnmux {

// attnmux: chunks dealt out by area, only keys that are needed, stages as asked for or chosen (choose_overlap).
// ring: zigzag shards (rank r of n owns blocks r and 2n - 1 - r of 2n), every rank's keys visit every rank, one hop
//   hides behind the attention with the last block; masked pairs cost nothing, and ranks never wait for slower
//   neighbours. Behind the last block its keys' gradients have one hop to go home.
// all-gather: the same shards, every rank receives all keys before it starts and sends gradients when it has ended.
struct SchemeStep {
  std::string scheme;
  int64_t ranks = 0;
  int64_t chunk_size = 0;       // attnmux only
  int64_t stages = 0;           // exchanges of one forward pass
  double growth = 1;            // of stages, attnmux only
  int64_t backward_stages = 0;  // exchanges of keys in one backward pass
  double backward_growth = 1;
  int64_t tokens_received = 0;  // by the rank that receives most, in one forward pass
  double balance = 1;           // largest area of a rank / mean area
  double step_s = 0;
  double exposed_s = 0;  // of the slowest rank's step: waiting for exchanges
  double speedup = 0;    // against one rank without exchanges
  double efficiency = 0;
};

// Chunks have at most dispatch.chunk_size tokens, are 8 a rank or more and as many on each, as far as they have 64
// tokens; dispatch.cp is ignored.
ATTNMUX_API std::vector<SchemeStep> simulate_schemes(const AttnMaskSpec& mask, int64_t ranks, DispatchOptions dispatch,
                                                     const OverlapOptions& overlap, const CostModel& model,
                                                     const AttentionSize& shape);

}  // namespace attnmux
