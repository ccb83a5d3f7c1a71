// Finds plugin libraries, checks them, loads them and fills a registry.
//
//   PluginRegistry registry;
//   PluginScan scan = load_plugins({.files = config_plugins, .relative_to = "runs"}, registry);
//   for (const PluginFile& file : scan.files) print(file.file, to_string(file.verdict));
//
// Search order:
//   1. PluginSearch::files, what the config names, relative to the config file's folder.
//   2. Environment: ATTNMUX_PLUGIN_FILES, files split at ':', replaces 3 and 4; ATTNMUX_PLUGIN_PATH, folders split at
//      ':', come before them.
//   3. attnmux/plugins beside the core library, where a build and an installed tree keep them.
//   4. The system's folder, fixed when the core was built.
// The current directory is never searched, the environment is ignored in a set-user-id program, the *.so of a folder
// are taken in sorted order, and a file met twice (same device and inode) is loaded once. A bad library found in a
// folder is reported and skipped; one that the config or ATTNMUX_PLUGIN_FILES names is an error, and so are two plugins
// with the same id. Loading is serialised by a mutex; a loaded library stays for good.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "attnmux/abi_tag.h"
#include "attnmux/backend.h"
#include "attnmux/error.h"
#include "attnmux/export.h"
#include "attnmux/registry.h"

namespace attnmux {

struct PluginSearch {
  std::vector<std::string> files;  // `plugins = [...]` of the config, as written
  std::string relative_to;         // the folder of the config file
};

// One folder of the search, in order.
struct PluginFolder {
  std::string path;
  std::string source;  // "ATTNMUX_PLUGIN_PATH", "beside the core library", "system"
  bool exists = false;
};

enum class PluginVerdict { kLoaded, kSameFile, kRefused };
ATTNMUX_API std::string_view to_string(PluginVerdict verdict);  // "loaded", "same file", "refused"

struct CpGroupInfo {
  std::string id, description;
};

// One file of the search, in order, and what became of it.
struct PluginFile {
  std::string file;
  std::string source;     // "config", "ATTNMUX_PLUGIN_FILES" or the folder's path
  bool required = false;  // named by config or environment: a refusal is an error
  PluginVerdict verdict = PluginVerdict::kRefused;
  std::optional<ErrorCode> error;   // why it was refused
  std::string text;                 // the error's text, or which file it is the same as
  std::optional<AbiTag> abi;        // once the tag could be read: compiler, sm_list, torch_version
  std::string id, version, vendor;  // once the entry could be called
  // What it registered, by the ids in the registry.
  std::vector<BackendInfo> backends;
  std::vector<CpGroupInfo> cp_groups;
};

struct PluginScan {
  std::vector<PluginFolder> folders;
  std::vector<PluginFile> files;
  // Every refusal of a required file and every duplicate id, in one text; empty: nothing that must stop a program.
  ATTNMUX_API std::string fatal() const;
};

// Never throws for what a plugin does wrong: for `attnmux plugins`, which shows every verdict.
ATTNMUX_API PluginScan scan_plugins(const PluginSearch& search, PluginRegistry& registry);

// As scan_plugins, then throws Error with the first fatal refusal's code and fatal()'s text; logs the others as
// warnings.
ATTNMUX_API PluginScan load_plugins(const PluginSearch& search, PluginRegistry& registry);

// Waits for the devices, then calls each loaded plugin's shutdown in reverse order of loading; what they registered
// must not be used afterwards. A second call does nothing. To be called at the end of main(), never from a destructor
// of a static object: the CUDA driver and LibTorch may be gone by then.
ATTNMUX_API void shutdown_plugins();

}  // namespace attnmux
