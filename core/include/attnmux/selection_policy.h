// The rules that choose backends, and where they come from: TOML, a model's config.json, the environment (SEL-10).
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
#include <vector>

#include "attnmux/export.h"

namespace attnmux {

struct SelectionRule {
  std::string match;    // `*` one path segment, `**` any number of them
  std::string role;     // only modules of this role; empty: all
  std::string backend;  // a backend id, or "auto"
  bool require_deterministic = false;
  std::vector<std::string> fallback;  // tried in order when `backend` refuses; empty: refusal is fatal
  std::string origin;                 // "train.toml:12:1", "config.json: _attn_implementation", "--set ..."
  bool derived = false;               // follows from attn_implementation: may match no module
};

struct SelectionPolicy {
  std::vector<SelectionRule> rules;  // the first that matches a module decides
  bool strict = false;               // a written fallback that is taken is fatal too
  std::vector<std::string> plugins;  // extra .so files to load, absolute or relative to the working directory
};

// Does a rule's `match` cover a module path?
ATTNMUX_API bool matches(const std::string& match, const std::string& path);

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
