// One plugin library, opened for good: its tag was read and compared before any of its code could run.
//
//   PluginLibrary library("/opt/acme/acme.so");            // throws Error: every Load code but kDuplicateId,
//   kInitFailed PluginRegistrations made = library.init();             // throws Error(kInitFailed)
//
// Not thread-safe: the loader holds its mutex.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "attnmux/plugin.h"

namespace attnmux {

// By id.
struct PluginRegistrations {
  std::map<std::string, std::shared_ptr<const AttentionBackend>> backends;
  std::map<std::string, std::shared_ptr<const CpGroupFactory>> cp_groups;
};

class PluginLibrary {
 public:
  // `file` is absolute. `tag` was read from it and has been compared with the host's.
  PluginLibrary(const std::string& file, const AbiTag& tag);
  PluginLibrary(const PluginLibrary&) = delete;
  PluginLibrary& operator=(const PluginLibrary&) = delete;

  const std::string& file() const { return file_; }
  const PluginEntry& entry() const { return *entry_; }

  PluginRegistrations init() const;
  void shutdown() const noexcept;

 private:
  std::string file_;
  const PluginEntry* entry_ = nullptr;
};

}  // namespace attnmux
