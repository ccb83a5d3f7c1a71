// [attention] of a TOML file: any bytes give an Error with a place, or rules that can be matched.
#include <cstdlib>
#include <string>

#include "attnmux/error.h"
#include "attnmux/selection_policy.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto policy = attnmux::policy_from_toml({reinterpret_cast<const char*>(data), size}, "dir/f.toml");
    for (const attnmux::SelectionRule& rule : policy.rules) {
      if (rule.match.empty() || rule.backend.empty() || rule.origin.empty()) std::abort();
      attnmux::matches(rule.match, "model.layers.0.self_attn");
    }
    for (const std::string& plugin : policy.plugins) {
      if (plugin.empty()) std::abort();
    }
  } catch (const attnmux::Error& error) {
    if (std::string(error.what()).find("f.toml:") == std::string::npos) std::abort();
  }
  return 0;
}
