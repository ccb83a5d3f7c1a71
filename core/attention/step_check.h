// Planned against executed, for one step.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "attnmux/ledger.h"
#include "attnmux/step_context.h"

namespace attnmux {

// One line for each module whose ledger entries are not those planned, naming module, planned and executed.
// `armed`: hash of the mask armed for each key. A module whose key is not armed must not run.
std::vector<std::string> step_problems(const SelectionTable& table, const std::map<std::string, Hash128>& armed,
                                       const std::vector<LedgerEntry>& executed, const StepOptions& options);

}  // namespace attnmux
