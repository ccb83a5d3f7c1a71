#define BOOST_DLL_USE_STD_FS
#include "plugin_library.h"

#include <dlfcn.h>

#include <algorithm>
#include <boost/dll/shared_library.hpp>
#include <cstring>
#include <filesystem>
#include <list>

#include "attnmux/error.h"

namespace attnmux {
namespace {

constexpr char kEntryName[] = "attnmux_plugin_entry_v1";
using EntryFunction = const PluginEntry*();

class StagingRegistrar final : public Registrar {
 public:
  void add_backend(std::shared_ptr<const AttentionBackend> backend) override {
    if (backend == nullptr) throw Error(ErrorCode::kInvalidArgument, "add_backend() was given no backend");
    const std::string id = backend->info().id;
    add(made.backends, "backend", id, std::move(backend));
  }

  void add_cp_group(std::shared_ptr<const CpGroupFactory> group) override {
    if (group == nullptr) throw Error(ErrorCode::kInvalidArgument, "add_cp_group() was given no group");
    const std::string id = group->id();
    add(made.cp_groups, "group", id, std::move(group));
  }

  PluginRegistrations made;

 private:
  template <class Interface>
  static void add(std::map<std::string, std::shared_ptr<const Interface>>& to, const std::string& what,
                  const std::string& id, std::shared_ptr<const Interface> object) {
    const auto allowed = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
    };
    if (id.empty() || !std::all_of(id.begin(), id.end(), allowed)) {
      throw Error(ErrorCode::kInvalidArgument,
                  "the " + what + " id '" + id + "' must be made of lower-case letters, digits, '_' and '-'");
    }
    if (!to.emplace(id, std::move(object)).second) {
      throw Error(ErrorCode::kDuplicateId, "the " + what + " id '" + id + "' is registered twice by the same plugin");
    }
  }
};

void keep_text(void* context, const char* text) noexcept {
  if (text == nullptr) return;
  try {
    *static_cast<std::string*>(context) = text;
  } catch (const std::bad_alloc&) {  // the status says that init failed, the reason has no room
  }
}

// RTLD_NOW: with the lazy default a library with an undefined symbol would load and stop the program in its first call.
// RTLD_LOCAL (Boost.DLL's default): plugins do not see each other's symbols. Never RTLD_GLOBAL, which would let one
// plugin's symbols stand in for another's; never RTLD_DEEPBIND, which would give a plugin its own operator new and its
// own copies of LibTorch's inline globals.
boost::dll::shared_library open_library(const std::string& file) {
  try {
    // The throwing constructor: the overload with an error code loses dlerror's text.
    return boost::dll::shared_library(std::filesystem::path(file), boost::dll::load_mode::rtld_now);
  } catch (const std::system_error& error) {
    throw Error(ErrorCode::kLinkError, file + ": cannot be linked into this program: " + error.what() +
                                           ". Build it with attnmux_add_plugin() against this LibTorch, and make sure "
                                           "that the libraries it needs are found (ldd shows them).");
  }
}

// A loaded library stays for good, also one that is refused afterwards. CUDA modules, LibTorch's registries and
// autograd nodes may hold addresses of its code until the process ends, so unloading it could never be shown to be
// safe.
const boost::dll::shared_library& keep_for_good(boost::dll::shared_library library) {
  static auto* kept = new std::list<boost::dll::shared_library>;  // leaked: its destructor would unload them
  return kept->emplace_back(std::move(library));
}

// Whether the address lies in the library that was opened: a lookup by name also finds symbols of the libraries that
// the opened one depends on.
std::string file_of(const void* address) {
  Dl_info info{};
  return ::dladdr(address, &info) == 0 || info.dli_fname == nullptr ? "" : info.dli_fname;
}

void require_inside(const std::string& file, const char* what, const void* address) {
  const std::string owner = file_of(address);
  std::error_code error;
  if (owner.empty() || !std::filesystem::equivalent(owner, file, error)) {
    throw Error(ErrorCode::kForeignEntry, file + ": " + what + " lies in " + (owner.empty() ? "no library" : owner) +
                                              ", not in this file. The library depends on a plugin instead of being "
                                              "one: use ATTNMUX_PLUGIN(...) in its own sources.");
  }
}

}  // namespace

PluginLibrary::PluginLibrary(const std::string& file, const AbiTag& tag) : file_(file) {
  const boost::dll::shared_library& library = keep_for_good(open_library(file));
  if (!library.has(kEntryName)) {
    throw Error(ErrorCode::kNoEntry, file + ": has a tag but does not export " + kEntryName +
                                         ". Write ATTNMUX_PLUGIN(...) once in its sources and build it with "
                                         "attnmux_add_plugin(), which exports the entry.");
  }
  const auto& entry_function = library.get<EntryFunction>(kEntryName);
  require_inside(file, kEntryName, reinterpret_cast<const void*>(&entry_function));

  const PluginEntry* entry = entry_function();
  const auto disagrees = [&](const std::string& problem) {
    return Error(ErrorCode::kTagDisagrees, file + ": its entry disagrees with its tag: " + problem +
                                               ". Let ATTNMUX_PLUGIN(...) write both, and use it once.");
  };
  if (entry == nullptr) throw disagrees("the entry function returned null");
  if (entry->struct_size < sizeof(PluginEntry)) {
    throw disagrees("struct_size is " + std::to_string(entry->struct_size) + ", PluginEntry of this ABI has " +
                    std::to_string(sizeof(PluginEntry)) + " bytes");
  }
  if (entry->abi == nullptr || std::memcmp(entry->abi, &tag, sizeof(AbiTag)) != 0) {
    throw disagrees("the tag in memory is not the one in section " + std::string(kAbiSection));
  }
  if (entry->id == nullptr || entry->version == nullptr || entry->vendor == nullptr || entry->init == nullptr) {
    throw disagrees("id, version, vendor or init is null");
  }
  entry_ = entry;
}

PluginRegistrations PluginLibrary::init() const {
  StagingRegistrar registrar;
  std::string explanation;
  const HostApi host{sizeof(HostApi), kAbiMinor, &keep_text, &explanation};
  const StatusCode status = entry_->init(&host, &registrar);
  if (status != StatusCode::kOk) {
    throw Error(ErrorCode::kInitFailed, file_ + ": plugin '" + entry_->id + "' " + entry_->version +
                                            " could not be initialised (status " +
                                            std::to_string(static_cast<int32_t>(status)) +
                                            "): " + (explanation.empty() ? "it gave no reason" : explanation));
  }
  if (registrar.made.backends.empty() && registrar.made.cp_groups.empty()) {
    throw Error(ErrorCode::kInitFailed, file_ + ": plugin '" + entry_->id +
                                            "' registered nothing. Call "
                                            "registrar.add_backend() or add_cp_group() in the function given to "
                                            "ATTNMUX_PLUGIN(...).");
  }
  return std::move(registrar.made);
}

void PluginLibrary::shutdown() const noexcept {
  if (entry_->shutdown != nullptr) entry_->shutdown();
}

}  // namespace attnmux
