// Linear warm-up, then half a cosine.
#pragma once

#include <cstdint>

namespace attnmux {

struct LrSchedule {
  double peak = 0;
  int64_t warmup_steps = 0;
  int64_t steps = 1;
};

// For step 1 to `steps`: peak * step / warmup_steps up to warmup_steps, then
// peak * (1 + cos(pi * (step - 1 - warmup_steps) / (steps - warmup_steps))) / 2: the first step after the warm-up runs
// at the peak, the last one above 0.
double learning_rate(const LrSchedule& schedule, int64_t step);

}  // namespace attnmux
