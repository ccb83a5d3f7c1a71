// The file and the plugin's entry: exports, needed libraries, what it registers, init and shutdown twice, two plugins
// in one process.
#include <dlfcn.h>

#include <filesystem>

#include "attnmux/attend.h"
#include "attnmux/error.h"
#include "attnmux/plugin_loader.h"
#include "conformance/elf_facts.h"
#include "conformance/families.h"

namespace attnmux::conformance {
namespace {

namespace fs = std::filesystem;

constexpr char kEntry[] = "attnmux_plugin_entry_v1";

void exports(const Subject& subject, CaseResult& result) {
  for (const std::string& name : read_elf_facts(subject.file).exports) {
    if (name != kEntry) {
      result.fail(Check::kExports, "exports " + name +
                                       " beside its entry: another library could be bound to it. Build "
                                       "the plugin with attnmux_add_plugin()");
    }
  }
}

void needed(const Subject& subject, CaseResult& result) {
  for (const std::string& name : read_elf_facts(subject.file).needed) {
    if (name.find("python") != std::string::npos) {
      result.fail(Check::kNeeded, "needs " + name + ": a plugin runs in programs without Python");
    }
  }
}

void info(const Subject& subject, CaseResult& result) {
  const BackendInfo info = subject.group != nullptr
                               ? BackendInfo{subject.group->id(), "of the plugin", subject.group->description()}
                               : subject.backend->info();
  if (info.id != subject.id) {
    result.fail(Check::kInfo, "info().id is \"" + info.id + "\", registered was \"" + subject.id + "\"");
  }
  if (info.version.empty()) result.fail(Check::kInfo, "info().version is empty");
  if (info.description.empty() || info.description.find('\n') != std::string::npos) {
    result.fail(Check::kInfo, "info().description is to be one line: \"" + info.description + "\"");
  }
}

PluginRegistry load(const std::vector<std::string>& files) {
  PluginRegistry registry;
  PluginScan scan = scan_plugins({.files = files, .relative_to = ""}, registry);
  if (const std::string text = scan.fatal(); !text.empty()) throw Error(ErrorCode::kInitFailed, text);
  return registry;
}

void call_once(const std::shared_ptr<const AttentionBackend>& backend, const std::string& id, uint64_t seed,
               CaseResult& result) {
  Case c{.family = Family::kForward, .mask = "full", .sq = 16, .sk = 16, .seed = seed};
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64}) {
    c.dt = dtype;
    const Setup setup(c);
    const Subject subject{.file = "", .id = id, .backend = backend};
    if (!backend->query(request_of(setup, subject.device)).ok()) continue;
    run_and_compare(subject, setup, kOut, Refusal::kForbidden, result);
    return;
  }
}

void init_twice(const Subject& subject, const Case& c, CaseResult& result) {
  shutdown_plugins();
  try {
    const PluginRegistry again = load({subject.file});
    const bool there =
        subject.group != nullptr ? again.find_cp_group(subject.id) != nullptr : again.find(subject.id) != nullptr;
    if (!there) {
      result.fail(Check::kInitTwice, "a second init did not register " + subject.id);
      return;
    }
    if (subject.group != nullptr) return;
    CaseResult called;
    call_once(again.at(subject.id), subject.id, c.seed, called);
    for (const Failure& failure : called.failures) {
      result.fail(Check::kInitTwice, "a call after init, shutdown, init: " + failure.text);
    }
  } catch (const Error& error) {
    result.fail(Check::kInitTwice, std::string("init, shutdown, init: ") + error.what());
  }
}

// A plugin of this program, and not the one under test.
std::string another_plugin(const Subject& subject) {
  Dl_info core{};
  if (::dladdr(reinterpret_cast<const void*>(&scan_plugins), &core) == 0) return "";
  const fs::path folder = fs::canonical(core.dli_fname).parent_path() / "attnmux" / "plugins";
  for (const char* name : {"reference.so", "sdpa.so"}) {
    if (fs::exists(folder / name) && !fs::equivalent(folder / name, subject.file)) return (folder / name).string();
  }
  return "";
}

void side_by_side(const Subject& subject, const Case& c, CaseResult& result) {
  const std::string other = another_plugin(subject);
  if (other.empty()) {
    result.warn("no other plugin lies beside the core library");
    return;
  }
  try {
    const PluginRegistry both = load({subject.file, other});
    for (const std::string& id : both.backend_ids()) {
      CaseResult called;
      call_once(both.at(id), id, c.seed, called);
      for (const Failure& failure : called.failures) {
        result.fail(Check::kSideBySide, "a call of " + id + " beside the other: " + failure.text);
      }
    }
  } catch (const Error& error) {
    result.fail(Check::kSideBySide, std::string("beside ") + other + ": " + error.what());
  }
}

}  // namespace

void run_meta(const Subject& subject, const Case& c, CaseResult& result) {
  if (c.check == "exports") return exports(subject, result);
  if (c.check == "needed") return needed(subject, result);
  if (c.check == "info") return info(subject, result);
  if (c.check == "init-twice") return init_twice(subject, c, result);
  side_by_side(subject, c, result);
}

}  // namespace attnmux::conformance
