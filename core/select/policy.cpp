#include <cstdlib>

#include "attnmux/log.h"
#include "attnmux/selection_policy.h"

namespace attnmux {
namespace {

constexpr const char* kOverride = "ATTNMUX_ATTN_IMPLEMENTATION";

}  // namespace

SelectionPolicy resolve_policy(const PolicySources& sources) {
  SelectionPolicy policy;
  if (!sources.toml.empty()) policy = policy_from_toml(sources.toml, sources.toml_file);
  if (const char* name = std::getenv(kOverride); name && *name) {
    log_warning(std::string(kOverride) + "=" + name + " replaces the attention rules of the configuration");
    policy.rules = policy_from_attn_implementation(name, std::string("environment: ") + kOverride).rules;
    return policy;
  }
  bool has_derived = false;
  for (const SelectionRule& rule : policy.rules) has_derived = has_derived || rule.derived;
  if (!has_derived && !sources.config_json.empty()) {
    if (auto derived = policy_from_config_json(sources.config_json, sources.config_json_file)) {
      policy.rules.insert(policy.rules.end(), derived->rules.begin(), derived->rules.end());
    }
  }
  return policy;
}

}  // namespace attnmux
