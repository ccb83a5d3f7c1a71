#include <iostream>
#include <nlohmann/json.hpp>

#include "attnmux/plugin_loader.h"
#include "tools/attnmux/command.h"

namespace attnmux::tool {
namespace {

using nlohmann::ordered_json;

ordered_json to_json(const BackendInfo& backend) {
  return {{"id", backend.id}, {"version", backend.version}, {"description", backend.description}};
}

ordered_json to_json(const PluginFile& file) {
  ordered_json json{{"file", file.file},
                    {"source", file.source},
                    {"required", file.required},
                    {"verdict", std::string(to_string(file.verdict))}};
  json["error"] = file.error ? ordered_json(std::string(to_string(*file.error))) : ordered_json();
  json["text"] = file.text;
  json["id"] = file.id;
  json["version"] = file.version;
  json["vendor"] = file.vendor;
  json["abi"] = ordered_json::object();
  if (file.abi) {
    for (const AbiFieldText& field : abi_fields(*file.abi)) json["abi"][field.field] = field.value;
  }
  json["backends"] = ordered_json::array();
  for (const BackendInfo& backend : file.backends) json["backends"].push_back(to_json(backend));
  json["cp_groups"] = ordered_json::array();
  for (const CpGroupInfo& group : file.cp_groups) {
    json["cp_groups"].push_back({{"id", group.id}, {"description", group.description}});
  }
  return json;
}

void print(const PluginScan& scan) {
  std::cout << "Searched, in this order:\n";
  for (const PluginFolder& folder : scan.folders) {
    std::cout << "  " << folder.path << "  (" << folder.source << (folder.exists ? "" : ", does not exist") << ")\n";
  }
  std::cout << "\nFiles:" << (scan.files.empty() ? " none\n" : "\n");
  for (const PluginFile& file : scan.files) {
    std::cout << "  " << file.file << ": " << to_string(file.verdict);
    if (!file.id.empty()) std::cout << ", plugin " << file.id << " " << file.version << " by " << file.vendor;
    std::cout << "\n";
    if (file.abi) {
      std::cout << "      built by " << file.abi->compiler << " for LibTorch " << file.abi->torch_version;
      if (file.abi->sm_list[0] != '\0') std::cout << ", GPU kernels for sm " << file.abi->sm_list;
      std::cout << "\n";
    }
    if (!file.text.empty()) std::cout << "      " << file.text << "\n";
    for (const BackendInfo& backend : file.backends) {
      std::cout << "      backend " << backend.id << " " << backend.version << ": " << backend.description << "\n";
    }
    for (const CpGroupInfo& group : file.cp_groups) {
      std::cout << "      group " << group.id << ": " << group.description << "\n";
    }
  }
}

}  // namespace

int run_plugins(const Arguments& arguments) {
  bool json = false;
  Flags flags({.name = "plugins",
               .usage = "[--json]",
               .about =
                   "Shows every directory that is searched for plugins, every file found there with a verdict, and "
                   "the\nattention backends and groups of ranks that each registered. ATTNMUX_PLUGIN_FILES and "
                   "ATTNMUX_PLUGIN_PATH "
                   "count as in a run.",
               .examples = {"attnmux plugins", "ATTNMUX_PLUGIN_FILES=./libacme.so attnmux plugins --json"}});
  flags.add("json", json, "answer as one JSON document");
  if (!flags.parse(arguments)) return 0;

  PluginRegistry registry;
  const PluginScan scan = scan_plugins({}, registry);
  if (json) {
    ordered_json document{{"folders", ordered_json::array()}, {"files", ordered_json::array()}};
    for (const PluginFolder& folder : scan.folders) {
      document["folders"].push_back({{"path", folder.path}, {"source", folder.source}, {"exists", folder.exists}});
    }
    for (const PluginFile& file : scan.files) document["files"].push_back(to_json(file));
    document["backends"] = registry.backend_ids();
    document["cp_groups"] = registry.cp_group_ids();
    print_json(document);
  } else {
    print(scan);
  }
  const std::string fatal = scan.fatal();
  if (fatal.empty()) return 0;
  for (const PluginFile& file : scan.files) {
    if (file.required && file.error) return exit_status(*file.error);
  }
  return exit_status(ErrorCode::kDuplicateId);
}

}  // namespace attnmux::tool
