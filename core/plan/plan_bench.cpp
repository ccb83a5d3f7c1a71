#include "attnmux/plan_bench.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "attnmux/error.h"

namespace attnmux {
namespace {

template <class Run>
double median_ms(int repetitions, Run&& run) {
  std::vector<double> times;
  for (int i = 0; i < repetitions; ++i) {
    const auto start = std::chrono::steady_clock::now();
    run();
    times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

}  // namespace

PlanTimes time_plan(const AttnMaskSpec& mask, const DispatchOptions& dispatch, const OverlapOptions& overlap,
                    int repetitions) {
  if (repetitions < 1) throw Error(ErrorCode::kInvalidArgument, "time_plan: repetitions must be at least 1");
  return {.dispatch_ms = median_ms(repetitions, [&] { plan_dispatch(mask, dispatch); }),
          .plan_ms = median_ms(
              repetitions, [&] { DistAttnPlan(mask, dispatch, overlap).rank(static_cast<int32_t>(dispatch.cp / 2)); })};
}

}  // namespace attnmux
