// The attention rules for a command that is given a model's folder, and a TOML file or none.
#pragma once

#include <string>

#include "attnmux/selection_policy.h"

namespace attnmux::tool {

// The rules of the TOML file and of the folder's config.json; where neither names a backend, the program's default for
// such commands, which is logged and named as the rule's origin.
SelectionPolicy model_policy(const std::string& model_dir, const std::string& toml_file);

}  // namespace attnmux::tool
