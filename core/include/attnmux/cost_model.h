// What a distributed attention call takes, predicted: how many stages pay off, what a group of ranks gains.
//
//   CostModel model = cost_model_from_json(text);       // as `attnmux bench comm --output F` measured it
//   int64_t stages = choose_stages(mask, {.cp = 64}, model, shape);
//   Prediction p = predict(DistAttnPlan(mask, {.cp = 64}, {stages}), model, shape);
//
// calc = 4 * area * heads_q * head_dim operations at a rate, comm = bytes of keys and values at a bandwidth, plus a
// latency for each exchange. A pass takes max(comm_0, host) + sum of max(comm_i, calc_{i-1}) + calc_last. Backward has
// 2.5 times the operations and moves twice the tokens: keys and values again, their gradients back. Pure functions.
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
  int64_t bytes_per_token() const;  // of keys and values
  friend bool operator==(const AttentionSize&, const AttentionSize&) = default;
};

enum class Pass : uint8_t { kForward, kBackward };

// The defaults are no measurement: one GPU of the Hopper kind behind a 400 Gbit/s link.
struct ATTNMUX_API CostModel {
  double flops_per_s = 500e12;  // attention of one rank
  double bytes_per_s = 50e9;    // that one rank sends and, at the same time, receives
  double latency_s = 20e-6;     // of one exchange
  std::string source = "assumed";

  double calc_s(int64_t area, const AttentionSize& shape, Pass pass) const;
  double comm_s(int64_t tokens, const AttentionSize& shape, Pass pass) const;  // 0 tokens take no time
};

// {"flops_per_s": 5e14, "bytes_per_s": 5e10, "latency_s": 2e-5, "source": ".."}. Throws Error(kConfig) naming the key
// that is missing, unknown or not above 0.
ATTNMUX_API CostModel cost_model_from_json(std::string_view json);
ATTNMUX_API std::string to_json(const CostModel& model);

// One thing that one rank does during a pass. The host's part is stage -1.
struct TimelineSpan {
  int64_t stage = 0;
  bool exchange = false;  // else attention
  double begin_s = 0;
  double end_s = 0;
};
ATTNMUX_API std::vector<TimelineSpan> timeline(const RankWork& work, const CostModel& model, const AttentionSize& shape,
                                               Pass pass);

struct Prediction {
  double one_rank_s = 0;  // forward and backward of the whole mask on one rank
  double step_s = 0;      // of the slowest rank, both passes
  double exposed_s = 0;   // of which it waits for exchanges
  int32_t slowest_rank = 0;
  double speedup = 0;     // one_rank_s / step_s
  double efficiency = 0;  // speedup / ranks
};
ATTNMUX_API Prediction predict(const DistAttnPlan& plan, const CostModel& model, const AttentionSize& shape);

// The number of stages, 1, 2, 4 .. 32: doubled as long as that makes the predicted step 1 % shorter.
ATTNMUX_API int64_t choose_stages(const AttnMaskSpec& mask, const DispatchOptions& dispatch, const CostModel& model,
                                  const AttentionSize& shape);

}  // namespace attnmux
