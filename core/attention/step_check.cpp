#include "step_check.h"

#include <set>

namespace attnmux {
namespace {

std::string short_hash(const Hash128& hash) { return to_string(hash).substr(0, 8); }

std::string times(int64_t count, const char* what) { return std::to_string(count) + " " + what; }

std::string described(const LedgerEntry& entry) {
  std::string text =
      "backend \"" + entry.backend + "\" with mask " + short_hash(entry.mask) + ": " + times(entry.forward, "forward");
  if (entry.recomputed > 0) text += ", " + times(entry.recomputed, "recomputed");
  return text + ", " + times(entry.backward, "backward");
}

std::string described(const std::vector<LedgerEntry>& entries) {
  std::string text;
  for (const LedgerEntry& entry : entries) text += (text.empty() ? "" : "; ") + described(entry);
  return text.empty() ? "nothing" : text;
}

// Recomputation repeats each forward pass once, or is not used.
bool same(const LedgerEntry& planned, const LedgerEntry& executed) {
  return planned.backend == executed.backend && planned.mask == executed.mask && planned.forward == executed.forward &&
         planned.backward == executed.backward && (executed.recomputed == 0 || executed.recomputed == planned.forward);
}

std::string hint(const LedgerEntry& planned, const std::vector<LedgerEntry>& executed) {
  if (executed.empty()) return "the module was skipped, or computed attention without step.attend()";
  if (executed.size() > 1) return "more than one backend or mask ran";
  const LedgerEntry& entry = executed.front();
  if (entry.backend != planned.backend) return "another backend ran";
  if (entry.mask != planned.mask) return "another mask was used";
  if (entry.forward > planned.forward) return "the module ran more often than planned";
  if (entry.forward < planned.forward) return "the module ran less often than planned";
  if (entry.backward < planned.backward) {
    return "no gradient came back: backward was not called, the loss does not depend on the module, or its inputs "
           "needed none";
  }
  if (entry.backward > planned.backward) return "backward ran more often than planned";
  return "the module was recomputed more or less often than it ran";
}

}  // namespace

std::vector<std::string> step_problems(const SelectionTable& table, const std::map<std::string, Hash128>& armed,
                                       const std::vector<LedgerEntry>& executed, const StepOptions& options) {
  std::map<std::string, std::vector<LedgerEntry>> by_module;
  for (const LedgerEntry& entry : executed) by_module[entry.module].push_back(entry);

  std::vector<std::string> problems;
  if (armed.empty()) problems.push_back("no mask was armed: the step had nothing to check its modules against");
  for (const ModuleChoice& choice : table.choices()) {
    const std::string& path = choice.module.path;
    const std::vector<LedgerEntry> ran = by_module[path];
    by_module.erase(path);
    const auto mask = armed.find(choice.module.mask_key);
    if (mask == armed.end()) {
      if (!ran.empty()) {
        problems.push_back(path + ": planned nothing (no mask is armed for \"" + choice.module.mask_key +
                           "\"), executed " + described(ran));
      }
      continue;
    }
    const int64_t passes = options.forward_passes;
    const LedgerEntry planned{.module = path,
                              .backend = choice.backend_id,
                              .mask = mask->second,
                              .forward = passes,
                              .backward = options.training && choice.module.request.training ? passes : 0};
    if (ran.size() == 1 && same(planned, ran.front())) continue;
    problems.push_back(path + ": planned " + described(planned) + "; executed " + described(ran) + " (" +
                       hint(planned, ran) + ")");
  }
  for (const auto& [path, ran] : by_module) {
    problems.push_back(path + ": not in the selection table, executed " + described(ran));
  }
  return problems;
}

}  // namespace attnmux
