#include "tools/attnmux/model_policy.h"

#include "attnmux/log.h"
#include "models/io/atomic_file.h"

namespace attnmux::tool {
namespace {

constexpr const char* kDefaultBackend = "magi";

}  // namespace

SelectionPolicy model_policy(const std::string& model_dir, const std::string& toml_file) {
  const std::string config_json = model_dir + "/config.json";
  SelectionPolicy policy = resolve_policy({.toml = toml_file.empty() ? "" : read_whole_file(toml_file),
                                           .toml_file = toml_file,
                                           .config_json = read_whole_file(config_json),
                                           .config_json_file = config_json});
  if (policy.rules.empty()) {
    log_info("neither --config nor config.json names an attention backend: the language attention is on " +
             std::string(kDefaultBackend));
    policy.rules = policy_from_attn_implementation(kDefaultBackend, "the program's default").rules;
  }
  return policy;
}

}  // namespace attnmux::tool
