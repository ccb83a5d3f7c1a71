#include "models/train/lr_schedule.h"

#include <cmath>
#include <numbers>

namespace attnmux {

double learning_rate(const LrSchedule& schedule, int64_t step) {
  if (step <= schedule.warmup_steps) {
    return schedule.peak * static_cast<double>(step) / static_cast<double>(schedule.warmup_steps);
  }
  const double progress = static_cast<double>(step - 1 - schedule.warmup_steps) /
                          static_cast<double>(schedule.steps - schedule.warmup_steps);
  return schedule.peak * 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
}

}  // namespace attnmux
