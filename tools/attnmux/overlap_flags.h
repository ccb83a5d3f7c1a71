// Flags of how exchanges and attention of a group go side by side, shared by the commands that plan for one.
#pragma once

#include <string>

#include "attnmux/dist_attn_plan.h"
#include "tools/attnmux/command.h"

namespace attnmux::tool {

struct OverlapFlags {
  std::string stages = "1", backward_stages;
  bool keep_remote_keys = false;

  void add_to(Flags& flags);
  // "auto" is kAutoStages, for choose_overlap. Throws Error(kUsage) for other words and for stages of its own for
  // backward beside keep_remote_keys.
  OverlapOptions options(const Flags& flags) const;
};

}  // namespace attnmux::tool
