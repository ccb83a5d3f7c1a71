// What a distributed attention call takes, predicted: how many stages pay off, what a group of ranks gains.
//
//   CostModel model = cost_model_from_json(text);       // as `attnmux bench comm --output F` measured it
//   OverlapOptions overlap = choose_overlap(mask, {.cp = 64}, kAutoOverlap, model, shape);
//   Prediction p = predict(DistAttnPlan(mask, {.cp = 64}, overlap), model, shape);
//
// A part (keys at hand and the own queries that attend them) takes 4 * area * heads_q * head_dim operations at a
// rate, 2.5 times that backward, plus what its rows, its keys and its call cost. An exchange takes its bytes at a
// bandwidth plus a latency; a rank's exchanges come one after another. A pass is what the runtime does: the exchange
// behind a part's keys is under way while the part is computed; backward, gradients of a part's keys go home while the
// next part is computed, and those of the last part behind all. Keys that were kept since forward are at hand. Pure
// functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "attnmux/dist_attn_plan.h"
#include "attnmux/export.h"
#include "attnmux/request.h"

namespace attnmux {

struct ATTNMUX_API AttentionSize {
  int64_t heads_q = 32;
  int64_t heads_kv = 8;
  int64_t head_dim = 128;
  DType dtype = DType::kBFloat16;
  int64_t bytes_per_token() const;           // of keys and values
  int64_t gradient_bytes_per_token() const;  // of dk and dv, which travel in fp32 (fp64 for fp64)
  friend bool operator==(const AttentionSize&, const AttentionSize&) = default;
};

struct PartSize {
  int64_t area = 0;  // attended pairs
  int64_t rows = 0;  // queries
  int64_t keys = 0;
};

enum class Cargo : uint8_t { kKeys, kGradients };

// The defaults are no measurement: one GPU of the Hopper kind behind a 400 Gbit/s link.
struct ATTNMUX_API CostModel {
  double flops_per_s = 500e12;              // attention of one rank, forward
  double backward_flops_per_s = 500e12;     // and backward
  double call_s = 10e-6;                    // of one part, whatever its size
  double row_bytes_per_s = 600e9;           // fp32 bytes of a part's output rows, made and merged
  double backward_row_bytes_per_s = 600e9;  // likewise of its dq, made and added up
  double key_bytes_per_s = 5e12;            // fp32 bytes of a part's keys and values, made ready
  double backward_key_bytes_per_s = 600e9;  // likewise, and their gradients made and packed
  double bytes_per_s = 50e9;                // that one rank sends and, at the same time, receives
  double latency_s = 20e-6;                 // of one exchange
  double overlap = 1;                       // share of an exchange under way that slows attention by nothing, 0 to 1
  std::string source = "assumed";

  double part_s(const PartSize& part, const AttentionSize& shape, Pass pass) const;  // nothing attended: 0
  double exchange_s(int64_t tokens, const AttentionSize& shape, Cargo cargo) const;  // 0 tokens: 0
};

// {"flops_per_s": 5e14, "bytes_per_s": 5e10, "latency_s": 2e-5, "source": ".."} and, where measured, "call_s",
// "row_bytes_per_s" and "key_bytes_per_s" (else free), "backward_" of these two and of "flops_per_s" (else as forward)
// and "overlap" (else 1). Throws Error(kConfig) naming `what` and the key that is missing, unknown or outside its
// limits.
ATTNMUX_API CostModel cost_model_from_json(std::string_view json, const std::string& what = "calibration");
ATTNMUX_API std::string to_json(const CostModel& model);

// One thing that one rank does during a pass. The host's part is stage -1.
struct TimelineSpan {
  int64_t stage = 0;
  bool exchange = false;   // else attention
  bool gradients = false;  // an exchange of these, not of keys and values
  double begin_s = 0;
  double end_s = 0;
};
ATTNMUX_API std::vector<TimelineSpan> timeline(const RankWork& work, const CostModel& model, const AttentionSize& shape,
                                               Pass pass);

// Forward and backward of a whole mask without exchanges.
ATTNMUX_API double one_rank_s(const AttnMaskSpec& mask, const CostModel& model, const AttentionSize& shape);

struct Prediction {
  double one_rank_s = 0;
  double forward_s = 0;   // of the rank that is slowest in it
  double backward_s = 0;  // likewise
  double step_s = 0;      // both passes, of the rank that is slowest in both together
  double exposed_s = 0;   // of which it waits for exchanges
  int32_t slowest_rank = 0;
  double speedup = 0;     // one_rank_s / step_s
  double efficiency = 0;  // speedup / ranks
};
ATTNMUX_API Prediction predict(const DistAttnPlan& plan, const CostModel& model, const AttentionSize& shape);

inline constexpr int64_t kAutoStages = 0;  // to be chosen
inline constexpr OverlapOptions kAutoOverlap{.forward = {.stages = kAutoStages}};

// `wanted` with each pass of kAutoStages chosen: the fewest stages, up to 256 of one size or of sizes that grow or
// shrink, that come within 0.2 % of the shortest pass that any of them makes (of the shortest step, where kept keys tie
// both passes to each other). Plans once: what stages share is taken to be spread evenly over them, and each to have
// rows of all that attend remote keys.
ATTNMUX_API OverlapOptions choose_overlap(const AttnMaskSpec& mask, const DispatchOptions& dispatch,
                                          OverlapOptions wanted, const CostModel& model, const AttentionSize& shape);

}  // namespace attnmux
