// report.html of a run: one file that opens offline, with curves, a packed sequence's mask and the backend table.
#pragma once

#include <string>
#include <vector>

#include "models/train/metrics.h"

namespace attnmux {

struct TrainPlan;

// Writes the page atomically. Throws Error(kIo).
void write_report(const TrainPlan& plan, const std::vector<StepMetrics>& metrics, const std::string& path);

}  // namespace attnmux
