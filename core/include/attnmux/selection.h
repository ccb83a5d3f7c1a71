// Which backend each attention module uses: ordered rules, decided for all modules before weights load.
//
//   SelectionTable table = select(policy, modules, registry);
//   table.at("model.layers.0.self_attn").backend->query(...);
//
// Requirements SEL-1 to SEL-10 are listed in core/select/README.md; tests cite them. Plain values, any thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "attnmux/backend.h"
#include "attnmux/export.h"
#include "attnmux/hash.h"
#include "attnmux/registry.h"
#include "attnmux/request.h"
#include "attnmux/selection_policy.h"

namespace attnmux {

// One attention module of a model, as the model layer describes it.
struct AttentionModule {
  std::string path;          // as in Hugging Face: "model.layers.0.self_attn"
  std::string role;          // "language" or "vision"
  std::string mask_key;      // which armed mask it consumes; usually its role
  AttentionRequest request;  // what its calls may bring
};

struct Rejection {
  std::string backend;
  std::vector<Reason> reasons;
};

struct ModuleChoice {
  AttentionModule module;
  std::string backend_id;
  std::shared_ptr<const AttentionBackend> backend;
  SelectionRule rule;
  bool fell_back = false;
  std::vector<Rejection> rejected;  // candidates of the rule that were asked before the chosen one
};

class ATTNMUX_API SelectionTable {
 public:
  explicit SelectionTable(std::vector<ModuleChoice> choices);
  const std::vector<ModuleChoice>& choices() const { return choices_; }
  const ModuleChoice& at(const std::string& path) const;  // Error(kUnmatchedModule) for an unknown path
  // Same on every rank that resolved the same table: module paths, backend ids, requests.
  Hash128 hash() const;

 private:
  std::vector<ModuleChoice> choices_;
};

// The module's own request, and what its rule requires.
ATTNMUX_API AttentionRequest required_request(const AttentionModule& module, const SelectionRule& rule);

// What a backend is asked. With cp_size > 1 it never sees the whole mask but its parts, a rank's queries against keys
// that it owns or receives: any union of slices, other numbers of keys than queries, rows without keys. With one rank
// the request itself.
ATTNMUX_API AttentionRequest request_of_parts(AttentionRequest request);

// What every other backend answers to the request that decided; no reasons: it would take the module, too.
ATTNMUX_API std::vector<Rejection> ask_others(const ModuleChoice& choice, const PluginRegistry& registry);

// Throws one Error that lists every problem of every module: kUnmatchedModule, kDeadRule, kUnknownBackend,
// kUnsupported.
ATTNMUX_API SelectionTable select(const SelectionPolicy& policy, const std::vector<AttentionModule>& modules,
                                  const PluginRegistry& registry);

}  // namespace attnmux
