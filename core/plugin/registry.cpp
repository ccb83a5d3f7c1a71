#include "attnmux/registry.h"

#include "attnmux/error.h"
#include "attnmux/spelling.h"

namespace attnmux {
namespace {

std::string where(const BackendOrigin& origin) {
  if (origin.file.empty()) return "the program itself";
  return origin.plugin_id.empty() ? origin.file : origin.file + " (plugin '" + origin.plugin_id + "')";
}

std::string join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text.empty() ? "none" : text;
}

}  // namespace

PluginRegistry::PluginRegistry() = default;
PluginRegistry::~PluginRegistry() = default;

void PluginRegistry::add(const std::string& id, std::shared_ptr<const AttentionBackend> backend, BackendOrigin origin) {
  if (id.empty() || backend == nullptr) {
    throw Error(ErrorCode::kInvalidArgument, "registry: a backend needs an id and an object; got id '" + id + "' and " +
                                                 (backend == nullptr ? "no object" : "an object"));
  }
  const auto [known, added] = entries_.try_emplace(id, Entry{backend, origin});
  if (added || known->second.backend == backend) return;
  throw Error(ErrorCode::kDuplicateId,
              "backend id '" + id + "' is registered twice: by " + where(known->second.origin) + " and by " +
                  where(origin) + ". Remove one of the two, or name the files to load in ATTNMUX_PLUGIN_FILES.");
}

std::shared_ptr<const AttentionBackend> PluginRegistry::find(const std::string& id) const {
  const auto known = entries_.find(id);
  return known == entries_.end() ? nullptr : known->second.backend;
}

std::shared_ptr<const AttentionBackend> PluginRegistry::at(const std::string& id) const {
  if (auto backend = find(id)) return backend;
  throw Error(ErrorCode::kUnknownBackend, unknown_word("backend", id, backend_ids()) +
                                              ". `attnmux plugins` shows where "
                                              "plugins were searched for.");
}

std::vector<std::string> PluginRegistry::backend_ids() const {
  std::vector<std::string> ids;
  for (const auto& [id, entry] : entries_) ids.push_back(id);
  return ids;
}

const BackendOrigin& PluginRegistry::origin(const std::string& id) const {
  const auto known = entries_.find(id);
  if (known == entries_.end()) throw Error(ErrorCode::kUnknownBackend, unknown_word("backend", id, backend_ids()));
  return known->second.origin;
}

Support PluginRegistry::available(const std::string& id, const AttentionRequest& request) const {
  const auto backend = find(id);
  if (backend != nullptr) return backend->query(request);
  return {.reasons = {{.code = ReasonCode::kBackend,
                       .got = id,
                       .want = join(backend_ids()),
                       .hint = unknown_word("backend", id, backend_ids())}}};
}

}  // namespace attnmux
