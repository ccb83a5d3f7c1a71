#include "plugin_files.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

namespace attnmux {
namespace {

namespace fs = std::filesystem;

// The parts of a ':'-separated list. An empty part would mean the current directory, which is never searched.
std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find(':', begin), text.size());
    if (end > begin) parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

// Null in a set-user-id or set-group-id program: there, whoever starts it must not choose the code that it runs.
std::string environment(const char* name) {
  const char* value = ::secure_getenv(name);
  return value == nullptr ? "" : value;
}

fs::path core_library_folder() {
  Dl_info info{};
  if (::dladdr(reinterpret_cast<const void*>(&find_plugin_files), &info) == 0) {
    throw Error(ErrorCode::kInternal, "the core library does not know the file that it was loaded from");
  }
  return fs::canonical(info.dli_fname).parent_path();
}

// A plugin is opened by absolute path: a bare name would make dlopen search the system's libraries.
std::string absolute_name(const fs::path& path) { return fs::absolute(path).lexically_normal().string(); }

void add_required(PluginCandidates& found, const fs::path& file, const std::string& source) {
  PluginFile entry;
  entry.file = absolute_name(file);
  entry.source = source;
  entry.required = true;
  found.files.push_back(entry);
}

void add_folder(PluginCandidates& found, const std::string& path, const std::string& source) {
  PluginFolder folder{absolute_name(path), source, false};
  std::error_code error;
  std::vector<std::string> names;
  fs::directory_iterator entries(folder.path, error);
  folder.exists = !error;
  for (const fs::directory_iterator end; !error && entries != end; entries.increment(error)) {
    if (entries->path().extension() == ".so") names.push_back(entries->path().string());
  }
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    PluginFile entry;
    entry.file = name;
    entry.source = folder.path;
    found.files.push_back(entry);
  }
  found.folders.push_back(std::move(folder));
}

}  // namespace

PluginCandidates find_plugin_files(const PluginSearch& search) {
  PluginCandidates found;
  for (const std::string& file : search.files) add_required(found, fs::path(search.relative_to) / file, "config");

  for (const std::string& folder : split(environment("ATTNMUX_PLUGIN_PATH"))) {
    add_folder(found, folder, "ATTNMUX_PLUGIN_PATH");
  }
  if (const auto files = split(environment("ATTNMUX_PLUGIN_FILES")); !files.empty()) {
    for (const std::string& file : files) add_required(found, file, "ATTNMUX_PLUGIN_FILES");
    return found;
  }
  add_folder(found, core_library_folder() / "attnmux" / "plugins", "beside the core library");
  add_folder(found, ATTNMUX_SYSTEM_PLUGIN_DIR, "system");
  return found;
}

}  // namespace attnmux
