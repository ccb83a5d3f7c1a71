#include <iostream>
#include <nlohmann/json.hpp>

#include "attnmux/plugin_loader.h"
#include "attnmux/system_report.h"
#include "tools/attnmux/command.h"

namespace attnmux::tool {

using nlohmann::ordered_json;

int run_doctor(const Arguments& arguments) {
  bool json = false;
  Flags flags({.name = "doctor",
               .usage = "[--json]",
               .about =
                   "Looks for LibTorch, CUDA, NCCL and MPI on this machine and says what each is needed for and what "
                   "to do\nwhere it is missing. Ends with 0 also where something is missing: the CPU part is "
                   "complete by itself.",
               .examples = {"attnmux doctor"}});
  flags.add("json", json, "answer as one JSON document");
  if (!flags.parse(arguments)) return 0;

  const std::vector<Finding> findings = examine_system();
  PluginRegistry registry;
  const PluginScan scan = scan_plugins({}, registry);
  if (json) {
    ordered_json document{{"findings", ordered_json::array()}, {"backends", registry.backend_ids()}};
    for (const Finding& finding : findings) {
      document["findings"].push_back({{"name", finding.name},
                                      {"found", finding.found},
                                      {"version", finding.version},
                                      {"where", finding.where},
                                      {"purpose", finding.purpose},
                                      {"remedy", finding.found ? "" : finding.remedy}});
    }
    print_json(document);
    return 0;
  }
  for (const Finding& finding : findings) {
    std::cout << (finding.found ? "found    " : "missing  ") << finding.name;
    if (finding.found) std::cout << ": " << finding.version;
    std::cout << "\n           needed for " << finding.purpose << "\n";
    if (!finding.where.empty()) std::cout << "           " << finding.where << "\n";
    if (!finding.found) std::cout << "           to do: " << finding.remedy << "\n";
  }
  std::cout << "\nAttention backends:";
  for (const std::string& id : registry.backend_ids()) std::cout << " " << id;
  std::cout << (registry.backend_ids().empty() ? " none; see `attnmux plugins`\n" : "\n");
  for (const PluginFile& file : scan.files) {
    if (file.verdict == PluginVerdict::kRefused)
      std::cout << "refused plugin: " << file.file << ": " << file.text << "\n";
  }
  return 0;
}

}  // namespace attnmux::tool
