#include <nlohmann/json.hpp>
#include <vector>

#include "attnmux/error.h"
#include "attnmux/json_problem.h"
#include "attnmux/selection_policy.h"

namespace attnmux {
namespace {

struct Named {
  std::string key;
  std::string value;
};

void read(const nlohmann::json& object, const char* key, const std::string& shown, const std::string& file_name,
          std::vector<Named>& found) {
  const auto entry = object.find(key);
  if (entry == object.end() || entry->is_null()) return;
  if (!entry->is_string()) {
    throw Error(ErrorCode::kConfig, file_name + ": key \"" + shown + "\" must be a string that names a backend, got " +
                                        std::string(entry->type_name()) +
                                        "; for one backend per part of the model write [[attention.rules]] in TOML");
  }
  found.push_back({shown, entry->get<std::string>()});
}

}  // namespace

SelectionPolicy policy_from_attn_implementation(const std::string& implementation, const std::string& origin) {
  if (implementation.empty()) throw Error(ErrorCode::kConfig, origin + ": the backend's name is empty");
  // A vision tower brings full masks and other head sizes than the text model: sdpa takes them, as in the reference
  // system, which puts its own kernel on the language modules only.
  return {.rules = {{.match = "**", .role = "language", .backend = implementation, .origin = origin, .derived = true},
                    {.match = "**", .role = "vision", .backend = "sdpa", .origin = origin, .derived = true}}};
}

std::optional<SelectionPolicy> policy_from_config_json(const std::string& json, const std::string& file_name) {
  nlohmann::json config;
  try {
    config = nlohmann::json::parse(json);
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorCode::kConfig, file_name + ": not valid JSON: " + json_problem(error.what(), json) +
                                        "; correct it there, or fetch the file again");
  }
  if (!config.is_object()) throw Error(ErrorCode::kConfig, file_name + ": a JSON object is expected");
  std::vector<Named> found;
  read(config, "_attn_implementation", "_attn_implementation", file_name, found);
  read(config, "attn_implementation", "attn_implementation", file_name, found);
  if (const auto backend = config.find("backend"); backend != config.end() && !backend->is_null()) {
    if (!backend->is_object()) {
      throw Error(ErrorCode::kConfig,
                  file_name + ": key \"backend\" must be an object like {\"attn\": \"magi\"}, got " +
                      std::string(backend->type_name()) + "; a name alone is the value of \"attn_implementation\"");
    }
    read(*backend, "attn", "backend.attn", file_name, found);
  }
  if (found.empty()) return std::nullopt;
  for (const Named& other : found) {
    if (other.value != found.front().value) {
      throw Error(ErrorCode::kConfig, file_name + ": key \"" + found.front().key + "\" says \"" + found.front().value +
                                          "\", key \"" + other.key + "\" says \"" + other.value +
                                          "\"; keep one of them");
    }
  }
  return policy_from_attn_implementation(found.front().value, file_name + ": " + found.front().key);
}

}  // namespace attnmux
