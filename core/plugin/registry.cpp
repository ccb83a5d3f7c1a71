#include "attnmux/registry.h"

#include "attnmux/error.h"
#include "attnmux/spelling.h"

namespace attnmux {
namespace {

std::string where(const PluginOrigin& origin) {
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

template <class Interface>
void PluginRegistry::add_to(Entries<Interface>& entries, const char* what, const std::string& id,
                            std::shared_ptr<const Interface> object, PluginOrigin origin) {
  if (id.empty() || object == nullptr) {
    throw Error(ErrorCode::kInvalidArgument, "registry: a " + std::string(what) +
                                                 " needs an id and an object; got id '" + id + "' and " +
                                                 (object == nullptr ? "no object" : "an object"));
  }
  const auto [known, added] = entries.try_emplace(id, Entry<Interface>{object, origin});
  if (added || known->second.object == object) return;
  throw Error(ErrorCode::kDuplicateId,
              std::string(what) + " id '" + id + "' is registered twice: by " + where(known->second.origin) +
                  " and by " + where(origin) +
                  ". Remove one of the two, or name the files to load in ATTNMUX_PLUGIN_FILES.");
}

void PluginRegistry::add(const std::string& id, std::shared_ptr<const AttentionBackend> backend, PluginOrigin origin) {
  add_to(backends_, "backend", id, std::move(backend), std::move(origin));
}

std::shared_ptr<const AttentionBackend> PluginRegistry::find(const std::string& id) const {
  const auto known = backends_.find(id);
  return known == backends_.end() ? nullptr : known->second.object;
}

std::shared_ptr<const AttentionBackend> PluginRegistry::at(const std::string& id) const {
  if (auto backend = find(id)) return backend;
  throw Error(ErrorCode::kUnknownBackend, unknown_word("backend", id, backend_ids()) +
                                              ". `attnmux plugins` shows where "
                                              "plugins were searched for.");
}

std::vector<std::string> PluginRegistry::backend_ids() const {
  std::vector<std::string> ids;
  for (const auto& [id, entry] : backends_) ids.push_back(id);
  return ids;
}

const PluginOrigin& PluginRegistry::origin(const std::string& id) const {
  const auto known = backends_.find(id);
  if (known == backends_.end()) throw Error(ErrorCode::kUnknownBackend, unknown_word("backend", id, backend_ids()));
  return known->second.origin;
}

void PluginRegistry::add_cp_group(const std::string& id, std::shared_ptr<const CpGroupFactory> group,
                                  PluginOrigin origin) {
  add_to(cp_groups_, "group", id, std::move(group), std::move(origin));
}

std::shared_ptr<const CpGroupFactory> PluginRegistry::find_cp_group(const std::string& id) const {
  const auto known = cp_groups_.find(id);
  return known == cp_groups_.end() ? nullptr : known->second.object;
}

std::shared_ptr<const CpGroupFactory> PluginRegistry::cp_group(const std::string& id) const {
  if (auto group = find_cp_group(id)) return group;
  std::vector<std::string> known = cp_group_ids();
  known.push_back("threads");
  throw Error(ErrorCode::kConfig, unknown_word("group", id, known) +
                                      ". \"threads\" is built in, others come from plugins: `attnmux plugins` shows "
                                      "where they were searched for.");
}

std::vector<std::string> PluginRegistry::cp_group_ids() const {
  std::vector<std::string> ids;
  for (const auto& [id, entry] : cp_groups_) ids.push_back(id);
  return ids;
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
