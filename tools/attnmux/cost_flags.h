// Flags of the commands that predict times: what a rank computes and what its link carries.
#pragma once

#include <string>

#include "attnmux/cost_model.h"
#include "tools/attnmux/command.h"

namespace attnmux::tool {

struct CostFlags {
  std::string heads = "32:8", dtype = "bf16", calibration;
  int64_t head_dim = 128;
  double link_gbps = 0, tflops = 0, latency_us = 0;

  void add_to(Flags& flags);
  // After parse(). Each throws Error(kUsage) naming the flag, or what reading the calibration throws.
  AttentionSize shape() const;
  CostModel model(const Flags& flags) const;
};

}  // namespace attnmux::tool
