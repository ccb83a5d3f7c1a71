// What `attnmux plan` answers, as JSON and as tables.
#pragma once

#include <cstdint>
#include <optional>

#include "attnmux/mask_report.h"
#include "attnmux/plan_report.h"

namespace attnmux::tool {

struct PlanAnswer {
  const AttnMaskSpec& mask;
  const PlanReport& report;
  double plan_ms = 0;           // median time of the group's plan and one rank's part
  std::optional<int32_t> rank;  // the one that JSON lists; none: all
};

// One document on one line. Ranks are written one by one: those of thousands would not fit into memory as a document.
void print_json(const PlanAnswer& answer);
void print(const PlanAnswer& answer);

}  // namespace attnmux::tool
