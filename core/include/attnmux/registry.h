// The backends at hand, by id: filled by loading plugins (plugin_loader.h) or, in tests, by add().
//
//   PluginRegistry registry;
//   registry.add("magi", backend, {.file = "lib/attnmux/plugins/magi.so"});
//   std::shared_ptr<const AttentionBackend> magi = registry.find("magi");   // nullptr when unknown
//
// A plain object that the program owns; nothing here is global. Adding is not thread-safe, reading is.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "attnmux/backend.h"
#include "attnmux/export.h"

namespace attnmux {

struct BackendOrigin {
  std::string file;       // the .so; empty for one added by hand
  std::string plugin_id;  // id of the plugin that registered it
};

class ATTNMUX_API PluginRegistry {
 public:
  PluginRegistry();
  ~PluginRegistry();

  // Throws Error(kDuplicateId) naming both files. Adding the same object twice under one id is no error.
  void add(const std::string& id, std::shared_ptr<const AttentionBackend> backend, BackendOrigin origin);

  std::shared_ptr<const AttentionBackend> find(const std::string& id) const;

  // Throws Error(kUnknownBackend) that lists the known ids and the nearest spelling.
  std::shared_ptr<const AttentionBackend> at(const std::string& id) const;

  // Sorted.
  std::vector<std::string> backend_ids() const;
  const BackendOrigin& origin(const std::string& id) const;

  // The backend's answer, or one refusal if there is no such backend: "is it available for this?"
  Support available(const std::string& id, const AttentionRequest& request) const;

 private:
  struct Entry {
    std::shared_ptr<const AttentionBackend> backend;
    BackendOrigin origin;
  };
  std::map<std::string, Entry> entries_;
};

}  // namespace attnmux
