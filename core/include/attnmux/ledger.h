// What ran: per module, which backend with which mask, how often, forward and backward.
//
//   ledger.record_forward("model.layers.0.self_attn", "magi", mask.hash());
//   for (const LedgerEntry& entry : ledger.entries()) ...
//
// Written by StepContext, read by reports and by finish(). Thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "attnmux/export.h"
#include "attnmux/hash.h"

namespace attnmux {

struct LedgerEntry {
  std::string module;
  std::string backend;
  Hash128 mask;
  int64_t forward = 0;
  int64_t recomputed = 0;
  int64_t backward = 0;
};

class ATTNMUX_API ExecutionLedger {
 public:
  void record_forward(const std::string& module, const std::string& backend, const Hash128& mask);
  void record_recompute(const std::string& module, const std::string& backend, const Hash128& mask);
  void record_backward(const std::string& module, const std::string& backend, const Hash128& mask);
  // Sorted by module, backend, mask.
  std::vector<LedgerEntry> entries() const;

 private:
  LedgerEntry& entry(const std::string& module, const std::string& backend, const Hash128& mask);
  mutable std::mutex mutex_;
  std::map<std::string, LedgerEntry> entries_;
};

}  // namespace attnmux
