#include "attnmux/plugin_loader.h"

#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <mutex>
#include <utility>

#include "attnmux/log.h"
#include "plugin_files.h"
#include "plugin_library.h"

namespace attnmux {
namespace {

using FileId = std::pair<dev_t, ino_t>;

struct Loaded {
  std::unique_ptr<PluginLibrary> library;
  PluginRegistrations registrations;  // empty after shutdown, until the next init
  bool running = false;               // init succeeded and shutdown has not been called since
};

// What this process has loaded. Libraries belong to the process, not to a registry: a second registry gets the same
// objects, and init runs once.
struct Process {
  std::mutex mutex;
  std::map<FileId, Loaded> libraries;
  std::vector<FileId> order;  // of init, for shutdown in reverse
};

Process& process() {
  // Leaked: libraries stay for good (see plugin_library.cpp), and static objects must not outlive what they point to.
  static auto* instance = new Process;
  return *instance;
}

FileId file_id(const std::string& file) {
  struct stat status {};
  if (::stat(file.c_str(), &status) != 0) {
    throw Error(ErrorCode::kNotFound,
                file + ": cannot be opened: " + std::strerror(errno) + ". Name an existing plugin library.");
  }
  return {status.st_dev, status.st_ino};
}

// The file's library, running: from this process's table or loaded now. Fills what is known of it, also when it throws.
const Loaded& start(const FileId& id, PluginFile& file) {
  Loaded& loaded = process().libraries[id];
  file.abi = read_abi_tag(file.file);
  if (loaded.library == nullptr) {
    const std::vector<AbiMismatch> mismatches = compare_abi(host_abi_tag(), *file.abi);
    if (!mismatches.empty()) throw Error(ErrorCode::kAbiMismatch, describe(file.file, mismatches));
    loaded.library = std::make_unique<PluginLibrary>(file.file, *file.abi);
  }
  const PluginEntry& entry = loaded.library->entry();
  file.id = entry.id;
  file.version = entry.version;
  file.vendor = entry.vendor;
  if (!loaded.running) {
    loaded.registrations = loaded.library->init();
    loaded.running = true;
    process().order.push_back(id);
  }
  return loaded;
}

// All that the plugin registered or nothing.
void add_to(PluginRegistry& registry, const Loaded& loaded, PluginFile& file) {
  const PluginOrigin origin{file.file, file.id};
  for (const auto& [id, backend] : loaded.registrations.backends) {
    const auto known = registry.find(id);
    if (known != nullptr && known != backend) registry.add(id, backend, origin);  // throws, naming both
  }
  for (const auto& [id, group] : loaded.registrations.cp_groups) {
    const auto known = registry.find_cp_group(id);
    if (known != nullptr && known != group) registry.add_cp_group(id, group, origin);  // throws, naming both
  }
  for (const auto& [id, backend] : loaded.registrations.backends) {
    registry.add(id, backend, origin);
    file.backends.push_back(backend->info());
  }
  for (const auto& [id, group] : loaded.registrations.cp_groups) {
    registry.add_cp_group(id, group, origin);
    file.cp_groups.push_back({id, group->description()});
  }
}

void load_file(PluginFile& file, std::map<FileId, std::string>& seen, PluginRegistry& registry) {
  try {
    const FileId id = file_id(file.file);
    if (const auto [first, added] = seen.emplace(id, file.file); !added) {
      file.verdict = PluginVerdict::kSameFile;
      file.text = "the same file as " + first->second;
      return;
    }
    add_to(registry, start(id, file), file);
    file.verdict = PluginVerdict::kLoaded;
  } catch (const Error& error) {
    file.verdict = PluginVerdict::kRefused;
    file.error = error.code();
    file.text = error.what();
  } catch (const std::exception& error) {  // a backend's info() may throw anything
    file.verdict = PluginVerdict::kRefused;
    file.error = ErrorCode::kInitFailed;
    file.text = file.file + ": " + error.what();
  }
}

// Two plugins with one id would make the choice between them a matter of file names.
bool stops_the_program(const PluginFile& file) {
  return file.verdict == PluginVerdict::kRefused && (file.required || file.error == ErrorCode::kDuplicateId);
}

void wait_for_devices() {
  const auto device_type = at::accelerator::getAccelerator(/*checked=*/false);
  if (!device_type.has_value()) return;
  const auto& hooks = at::globalContext().getAcceleratorHooksInterface(device_type);
  for (c10::DeviceIndex i = 0; i < at::accelerator::deviceCount(); ++i) {
    if (hooks.hasPrimaryContext(i)) at::accelerator::synchronizeDevice(i);  // others were never used
  }
}

}  // namespace

std::string_view to_string(PluginVerdict verdict) {
  switch (verdict) {
    case PluginVerdict::kLoaded: return "loaded";
    case PluginVerdict::kSameFile: return "same file";
    case PluginVerdict::kRefused: return "refused";
  }
  return "refused";
}

std::string PluginScan::fatal() const {
  std::string text;
  for (const PluginFile& file : files) {
    if (stops_the_program(file)) text += (text.empty() ? "" : "\n") + file.text;
  }
  return text;
}

PluginScan scan_plugins(const PluginSearch& search, PluginRegistry& registry) {
  const std::lock_guard lock(process().mutex);
  PluginCandidates found = find_plugin_files(search);
  std::map<FileId, std::string> seen;
  for (PluginFile& file : found.files) load_file(file, seen, registry);
  return {std::move(found.folders), std::move(found.files)};
}

PluginScan load_plugins(const PluginSearch& search, PluginRegistry& registry) {
  PluginScan scan = scan_plugins(search, registry);
  for (const PluginFile& file : scan.files) {
    if (stops_the_program(file)) throw Error(*file.error, scan.fatal());
  }
  for (const PluginFile& file : scan.files) {
    if (file.verdict == PluginVerdict::kRefused) log_warning("plugin skipped: " + file.text);
  }
  return scan;
}

void shutdown_plugins() {
  const std::lock_guard lock(process().mutex);
  std::vector<FileId>& order = process().order;
  if (order.empty()) return;
  wait_for_devices();
  while (!order.empty()) {
    Loaded& loaded = process().libraries.at(order.back());
    order.pop_back();
    loaded.registrations = {};
    loaded.running = false;
    loaded.library->shutdown();
  }
}

}  // namespace attnmux
