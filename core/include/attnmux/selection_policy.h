// Where the rules come from: TOML, a model's config.json, the environment. One of them decides (SEL-10).
//
//   SelectionPolicy policy = resolve_policy({.toml = text, .toml_file = "train.toml",
//                                            .config_json = json, .config_json_file = "model/config.json"});
//   SelectionTable table = select(policy, modules, registry);
//
// Order: ATTNMUX_ATTN_IMPLEMENTATION in the environment replaces every rule; else [[attention.rules]] in the order in
// which they are written, then the rules that follow from `[model] attn_implementation`, or, where TOML has none, from
// config.json. Each rule carries its origin. Pure functions but for the environment, any thread.
#pragma once

#include <optional>
#include <string>

#include "attnmux/export.h"
#include "attnmux/selection.h"

namespace attnmux {

// `attn_implementation = "magi"`: modules of role "language" on it, modules of role "vision" on sdpa.
ATTNMUX_API SelectionPolicy policy_from_attn_implementation(const std::string& implementation,
                                                            const std::string& origin);

// [attention] plugins, strict and [[attention.rules]] of a TOML text, and `[model] attn_implementation`. The other
// tables of a training file are left to their readers. Error(kConfig) with line and column; for an unknown key or table
// also the nearest spelling.
ATTNMUX_API SelectionPolicy policy_from_toml(const std::string& text, const std::string& file_name);

// `_attn_implementation`, `attn_implementation` or `backend.attn` of a Hugging Face config.json; none: nullopt.
// Error(kConfig) where two of them disagree or one is not a string.
ATTNMUX_API std::optional<SelectionPolicy> policy_from_config_json(const std::string& json,
                                                                   const std::string& file_name);

struct PolicySources {
  std::string toml;         // empty: none
  std::string toml_file;    // named in origins and errors; `plugins` are relative to its folder
  std::string config_json;  // empty: none
  std::string config_json_file;
};
ATTNMUX_API SelectionPolicy resolve_policy(const PolicySources& sources);

}  // namespace attnmux
