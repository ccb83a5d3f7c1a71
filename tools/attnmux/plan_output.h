// What `attnmux plan` answers, as JSON and as tables.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "attnmux/mask_report.h"
#include "attnmux/plan_report.h"

namespace attnmux::tool {

struct PlanAnswer {
  const AttnMaskSpec& mask;
  const PlanReport& report;
  double plan_ms = 0;  // median time of the group's plan and one rank's part
};

nlohmann::ordered_json to_json(const PlanAnswer& answer);
void print(const PlanAnswer& answer);

}  // namespace attnmux::tool
