#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "attnmux/plugin_loader.h"
#include "models/train/choose_backends.h"
#include "tools/attnmux/command.h"

namespace attnmux::tool {
namespace {

using nlohmann::ordered_json;

ordered_json to_json(const Reason& reason) {
  return {
      {"code", std::string(to_string(reason.code))}, {"got", reason.got}, {"want", reason.want}, {"hint", reason.hint}};
}

ordered_json to_json(const ModuleChoice& choice, const PluginRegistry& registry) {
  ordered_json json{
      {"path", choice.module.path},
      {"role", choice.module.role},
      {"backend", choice.backend_id},
      {"rule", {{"match", choice.rule.match}, {"backend", choice.rule.backend}, {"origin", choice.rule.origin}}},
      {"fell_back", choice.fell_back},
      {"others", ordered_json::array()}};
  for (const Rejection& other : ask_others(choice, registry)) {
    ordered_json reasons = ordered_json::array();
    for (const Reason& reason : other.reasons) reasons.push_back(to_json(reason));
    json["others"].push_back({{"backend", other.backend}, {"takes_it", other.reasons.empty()}, {"reasons", reasons}});
  }
  return json;
}

// What the other backends said, as text: the same for most modules, so that it is shown once for all of them.
std::string others_text(const ModuleChoice& choice, const PluginRegistry& registry) {
  std::string text;
  for (const Rejection& other : ask_others(choice, registry)) {
    text += "  " + other.backend + (other.reasons.empty() ? " would take it, too; the rule decides\n" : " refuses:\n");
    for (const Reason& reason : other.reasons) text += "      " + reason.to_string() + "\n";
  }
  return text;
}

void print(const SelectionTable& table, const PluginRegistry& registry) {
  std::vector<std::vector<std::string>> rows{{"module", "role", "backend", "rule"}};
  std::map<std::string, std::vector<std::string>> modules_by_answer;
  for (const ModuleChoice& choice : table.choices()) {
    rows.push_back({choice.module.path, choice.module.role, choice.backend_id + (choice.fell_back ? " (fallback)" : ""),
                    "match = \"" + choice.rule.match + "\" at " + choice.rule.origin});
    modules_by_answer[others_text(choice, registry)].push_back(choice.module.path);
  }
  print_table(rows);
  for (const auto& [answer, modules] : modules_by_answer) {
    std::cout << "\nThe other backends, for " << modules.front();
    if (modules.size() > 1) std::cout << " and " << modules.size() - 1 << " more modules";
    std::cout << ":\n" << (answer.empty() ? "  there are none\n" : answer);
  }
}

}  // namespace

int run_explain(const Arguments& arguments) {
  std::string file;
  bool json = false;
  Flags flags({.name = "explain",
               .usage = "F.toml [--json]",
               .about =
                   "Tells for each attention module of the model its backend, the rule that chose it, and what the "
                   "other\nbackends say. Reads config.json and the rules, no weights.",
               .examples = {"attnmux explain tools/recipes/jargon.toml"}});
  flags.add("json", json, "answer as one JSON document");
  flags.add_positional("F.toml", file, "the file that `attnmux train` takes");
  if (!flags.parse(arguments)) return 0;

  const TrainConfig config = load_train_config(file, {});
  const SelectionPolicy policy = training_policy(config);
  PluginRegistry registry;
  load_plugins({.files = policy.plugins}, registry);
  const SelectionTable table = choose_backends(config, policy, registry);
  if (json) {
    ordered_json document{{"modules", ordered_json::array()}, {"hash", to_string(table.hash())}};
    for (const ModuleChoice& choice : table.choices()) document["modules"].push_back(to_json(choice, registry));
    print_json(document);
  } else {
    print(table, registry);
  }
  return 0;
}

}  // namespace attnmux::tool
