// The backends and the transports at hand, by id: filled by loading plugins (plugin_loader.h) or, in tests, by hand.
//
//   PluginRegistry registry;
//   registry.add("magi", backend, {.file = "lib/attnmux/plugins/magi.so"});
//   std::shared_ptr<const AttentionBackend> magi = registry.find("magi");   // nullptr when unknown
//   std::shared_ptr<CpGroup> world = registry.cp_group("mpi")->connect({});
//
// A plain object that the program owns; nothing here is global. Adding is not thread-safe, reading is.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "attnmux/backend.h"
#include "attnmux/cp_group.h"
#include "attnmux/export.h"

namespace attnmux {

struct PluginOrigin {
  std::string file;       // the .so; empty for one added by hand
  std::string plugin_id;  // id of the plugin that registered it
};

class ATTNMUX_API PluginRegistry {
 public:
  PluginRegistry();
  ~PluginRegistry();

  // Throws Error(kDuplicateId) naming both files. Adding the same object twice under one id is no error.
  void add(const std::string& id, std::shared_ptr<const AttentionBackend> backend, PluginOrigin origin);

  std::shared_ptr<const AttentionBackend> find(const std::string& id) const;

  // Throws Error(kUnknownBackend) that lists the known ids and the nearest spelling.
  std::shared_ptr<const AttentionBackend> at(const std::string& id) const;

  // Sorted.
  std::vector<std::string> backend_ids() const;

  // The same for transports between processes, whose ids are apart from those of backends. cp_group() throws
  // Error(kConfig) that lists the known ids, "threads" of the core among them, and the nearest spelling.
  void add_cp_group(const std::string& id, std::shared_ptr<const CpGroupFactory> group, PluginOrigin origin);
  std::shared_ptr<const CpGroupFactory> find_cp_group(const std::string& id) const;
  std::shared_ptr<const CpGroupFactory> cp_group(const std::string& id) const;
  std::vector<std::string> cp_group_ids() const;

  const PluginOrigin& origin(const std::string& id) const;

  // The backend's answer, or one refusal if there is no such backend: "is it available for this?"
  Support available(const std::string& id, const AttentionRequest& request) const;

 private:
  template <class Interface>
  struct Entry {
    std::shared_ptr<const Interface> object;
    PluginOrigin origin;
  };
  template <class Interface>
  using Entries = std::map<std::string, Entry<Interface>>;
  template <class Interface>
  static void add_to(Entries<Interface>& entries, const char* what, const std::string& id,
                     std::shared_ptr<const Interface> object, PluginOrigin origin);

  Entries<AttentionBackend> backends_;
  Entries<CpGroupFactory> cp_groups_;
};

}  // namespace attnmux
