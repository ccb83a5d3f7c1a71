#include "attnmux/ledger.h"

namespace attnmux {

LedgerEntry& ExecutionLedger::entry(const std::string& module, const std::string& backend, const Hash128& mask) {
  // A zero byte separates the parts: no path or id holds one, and it sorts before every other character.
  const std::string key = module + '\0' + backend + '\0' + to_string(mask);
  return entries_.try_emplace(key, LedgerEntry{.module = module, .backend = backend, .mask = mask}).first->second;
}

void ExecutionLedger::record_forward(const std::string& module, const std::string& backend, const Hash128& mask) {
  std::lock_guard lock(mutex_);
  ++entry(module, backend, mask).forward;
}

void ExecutionLedger::record_recompute(const std::string& module, const std::string& backend, const Hash128& mask) {
  std::lock_guard lock(mutex_);
  ++entry(module, backend, mask).recomputed;
}

void ExecutionLedger::record_backward(const std::string& module, const std::string& backend, const Hash128& mask) {
  std::lock_guard lock(mutex_);
  ++entry(module, backend, mask).backward;
}

std::vector<LedgerEntry> ExecutionLedger::entries() const {
  std::lock_guard lock(mutex_);
  std::vector<LedgerEntry> result;
  for (const auto& [key, value] : entries_) result.push_back(value);
  return result;
}

}  // namespace attnmux
