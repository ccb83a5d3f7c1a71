// Plugins made for the purpose (tests/unit/plugins), most of them wrong: each refusal has its code, its text names the
// file and what to do, and leaves the registry as it was.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/auxv.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "attnmux/plugin_loader.h"

namespace attnmux {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// Sets an environment variable for a scope.
class ScopedVariable {
 public:
  ScopedVariable(const char* name, const std::string& value) : name_(name) { ::setenv(name, value.c_str(), 1); }
  ~ScopedVariable() { ::unsetenv(name_); }
  ScopedVariable(const ScopedVariable&) = delete;
  ScopedVariable& operator=(const ScopedVariable&) = delete;

 private:
  const char* name_;
};

std::string plugin(const std::string& name) { return ATTNMUX_BUILD_DIR "/tests/plugins/" + name + ".so"; }

class LoaderTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("attnmux_loader_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
    ::setenv("ATTNMUX_PLUGIN_FILES", plugin("good").c_str(), 1);  // not what this build tree happens to hold
  }
  void TearDown() override {
    ::unsetenv("ATTNMUX_PLUGIN_FILES");
    ::unsetenv("ATTNMUX_PLUGIN_PATH");
    fs::remove_all(folder_);
  }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  // A copy is another file, which the process loads as another library.
  std::string copy(const std::string& from, const std::string& name) const {
    fs::copy_file(plugin(from), path(name));
    return path(name);
  }

  std::string write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path(name), std::ios::binary) << bytes;
    return path(name);
  }

  // The good plugin with another tag.
  std::string with_tag(const std::string& name, void (*change)(AbiTag& tag)) const {
    std::ifstream in(plugin("good"), std::ios::binary);
    std::string bytes{std::istreambuf_iterator<char>(in), {}};
    const AbiTag original = read_abi_tag(plugin("good"));
    const size_t at = bytes.find(std::string(reinterpret_cast<const char*>(&original), sizeof original));
    EXPECT_NE(at, std::string::npos);
    AbiTag tag = original;
    change(tag);
    bytes.replace(at, sizeof tag, std::string(reinterpret_cast<const char*>(&tag), sizeof tag));
    return write(name, bytes);
  }

  // What becomes of one file that the config names.
  PluginFile verdict(const std::string& file) {
    PluginRegistry registry;
    const PluginScan scan = scan_plugins({.files = {file}, .relative_to = "/"}, registry);
    const PluginFile& result = scan.files.at(0);
    EXPECT_EQ(result.source, "config");
    EXPECT_TRUE(result.required);
    if (result.verdict == PluginVerdict::kRefused) {
      EXPECT_EQ(scan.fatal(), result.text);
      EXPECT_THAT(result.text, HasSubstr(file));
      EXPECT_THAT(registry.backend_ids(), ElementsAre("good", "good-too"));  // of ATTNMUX_PLUGIN_FILES
    }
    return result;
  }

  fs::path folder_;
};

TEST_F(LoaderTest, AGoodPluginRegistersItsBackends) {
  ::unsetenv("ATTNMUX_PLUGIN_FILES");
  PluginRegistry registry;
  const PluginScan scan =
      load_plugins({.files = {"good.so"}, .relative_to = ATTNMUX_BUILD_DIR "/tests/plugins"}, registry);
  const PluginFile& file = scan.files.at(0);
  EXPECT_EQ(file.file, plugin("good"));
  EXPECT_EQ(file.verdict, PluginVerdict::kLoaded);
  EXPECT_EQ(file.id, "good");
  EXPECT_EQ(file.version, "1.2.3");
  EXPECT_EQ(file.vendor, "attnmux tests");
  ASSERT_TRUE(file.abi.has_value());
  EXPECT_STREQ(file.abi->compiler, host_abi_tag().compiler);
  ASSERT_EQ(file.backends.size(), 2u);
  EXPECT_EQ(file.backends[0].id, "good");
  EXPECT_EQ(file.backends[1].id, "good-too");
  EXPECT_EQ(registry.origin("good").file, plugin("good"));
  EXPECT_EQ(registry.origin("good").plugin_id, "good");
  EXPECT_EQ(registry.at("good-too")->info().version, "1.2.3");
}

TEST_F(LoaderTest, LoadingTwiceIsIdempotent) {
  PluginRegistry registry;
  load_plugins({}, registry);
  const auto first = registry.at("good");
  load_plugins({}, registry);
  EXPECT_EQ(registry.at("good"), first);

  PluginRegistry second;
  load_plugins({}, second);
  EXPECT_EQ(second.at("good"), first);
}

TEST_F(LoaderTest, OneFileUnderTwoNamesIsLoadedOnce) {
  fs::create_symlink(plugin("good"), path("link.so"));
  fs::create_hard_link(copy("other", "first.so"), path("second.so"));
  PluginRegistry registry;
  const PluginScan scan =
      load_plugins({.files = {path("link.so"), path("first.so"), path("second.so")}, .relative_to = "/"}, registry);
  ASSERT_EQ(scan.files.size(), 4u);
  EXPECT_EQ(scan.files[0].verdict, PluginVerdict::kLoaded);
  EXPECT_EQ(scan.files[1].verdict, PluginVerdict::kLoaded);
  EXPECT_EQ(scan.files[2].verdict, PluginVerdict::kSameFile);
  EXPECT_THAT(scan.files[2].text, HasSubstr(path("first.so")));
  EXPECT_EQ(scan.files[3].source, "ATTNMUX_PLUGIN_FILES");
  EXPECT_EQ(scan.files[3].verdict, PluginVerdict::kSameFile);
}

// --- search order ---

TEST_F(LoaderTest, SearchOrder) {
  ::unsetenv("ATTNMUX_PLUGIN_FILES");
  fs::create_directories(folder_ / "b");
  fs::create_directories(folder_ / "a");
  fs::copy_file(plugin("no_tag"), folder_ / "a" / "2.so");
  fs::copy_file(plugin("no_tag"), folder_ / "a" / "1.so");
  fs::copy_file(plugin("no_tag"), folder_ / "a" / "ignored.txt");
  const ScopedVariable variable("ATTNMUX_PLUGIN_PATH", path("b") + "::" + path("a") + ":" + path("missing"));
  PluginRegistry registry;
  const PluginScan scan = scan_plugins({.files = {plugin("good")}, .relative_to = ""}, registry);

  ASSERT_EQ(scan.folders.size(), 5u);  // the empty part between two ':' is not the current directory
  EXPECT_EQ(scan.folders[0].path, path("b"));
  EXPECT_EQ(scan.folders[0].source, "ATTNMUX_PLUGIN_PATH");
  EXPECT_TRUE(scan.folders[0].exists);
  EXPECT_EQ(scan.folders[1].path, path("a"));
  EXPECT_EQ(scan.folders[2].path, path("missing"));
  EXPECT_FALSE(scan.folders[2].exists);
  EXPECT_EQ(scan.folders[3].path, fs::canonical(ATTNMUX_BUILD_DIR "/lib") / "attnmux" / "plugins");
  EXPECT_EQ(scan.folders[3].source, "beside the core library");
  EXPECT_EQ(scan.folders[4].source, "system");
  EXPECT_TRUE(fs::path(scan.folders[4].path).is_absolute());

  ASSERT_GE(scan.files.size(), 3u);
  EXPECT_EQ(scan.files[0].source, "config");
  EXPECT_EQ(scan.files[1].file, path("a") + "/1.so");
  EXPECT_EQ(scan.files[2].file, path("a") + "/2.so");
  EXPECT_EQ(scan.files[2].source, path("a"));
}

TEST_F(LoaderTest, FilesOfTheEnvironmentReplaceTheFolders) {
  const ScopedVariable variable("ATTNMUX_PLUGIN_PATH", folder_.string());
  PluginRegistry registry;
  const PluginScan scan = scan_plugins({}, registry);
  ASSERT_EQ(scan.folders.size(), 1u);
  EXPECT_EQ(scan.folders[0].source, "ATTNMUX_PLUGIN_PATH");
  ASSERT_EQ(scan.files.size(), 1u);
  EXPECT_EQ(scan.files[0].file, plugin("good"));
  EXPECT_TRUE(scan.files[0].required);
}

TEST_F(LoaderTest, ABadFileOfAFolderIsSkippedAndReported) {
  copy("no_tag", "bad.so");
  const ScopedVariable variable("ATTNMUX_PLUGIN_PATH", folder_.string());
  PluginRegistry registry;
  const PluginScan scan = load_plugins({}, registry);
  ASSERT_EQ(scan.files.size(), 2u);
  EXPECT_EQ(scan.files[0].verdict, PluginVerdict::kRefused);
  EXPECT_EQ(scan.files[0].error, ErrorCode::kNoTag);
  EXPECT_EQ(scan.fatal(), "");
  EXPECT_THAT(registry.backend_ids(), ElementsAre("good", "good-too"));
}

TEST_F(LoaderTest, ABadFileThatIsNamedIsAnError) {
  PluginRegistry registry;
  try {
    load_plugins({.files = {plugin("no_tag"), path("missing.so")}, .relative_to = ""}, registry);
    FAIL() << "loaded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kNoTag);  // the first one's
    EXPECT_EQ(exit_status(error.code()), 4);
    EXPECT_THAT(error.what(), AllOf(HasSubstr(plugin("no_tag")), HasSubstr(path("missing.so"))));
  }
}

TEST_F(LoaderTest, ADuplicateIdIsAnErrorEvenInAFolder) {
  const std::string duplicate = copy("duplicate_id", "duplicate.so");
  const ScopedVariable variable("ATTNMUX_PLUGIN_PATH", folder_.string());
  PluginRegistry registry;
  try {
    load_plugins({.files = {plugin("good")}, .relative_to = ""}, registry);
    FAIL() << "loaded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kDuplicateId);
    EXPECT_THAT(error.what(), AllOf(HasSubstr(duplicate), HasSubstr(plugin("good")), HasSubstr("'good-too'")));
  }
  EXPECT_EQ(registry.find("fresh"), nullptr);  // all of a plugin's backends or none
}

TEST_F(LoaderTest, APluginMayRegisterGroupsAlone) {
  PluginRegistry registry;
  const PluginScan scan = load_plugins({.files = {plugin("groups")}, .relative_to = ""}, registry);
  EXPECT_THAT(scan.files.at(0).backends, IsEmpty());
  ASSERT_EQ(scan.files.at(0).cp_groups.size(), 2u);
  EXPECT_EQ(scan.files.at(0).cp_groups[0].id, "pigeon");
  EXPECT_EQ(scan.files.at(0).cp_groups[0].description, "connects nobody");
  EXPECT_THAT(registry.cp_group_ids(), ElementsAre("pigeon", "wire"));
  EXPECT_EQ(registry.cp_group("wire")->id(), "wire");
}

TEST_F(LoaderTest, ADuplicateGroupIsAnErrorAndRegistersNothing) {
  PluginRegistry registry;
  try {
    load_plugins({.files = {plugin("groups"), plugin("duplicate_group")}, .relative_to = ""}, registry);
    FAIL() << "loaded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kDuplicateId);
    EXPECT_THAT(error.what(),
                AllOf(HasSubstr("group id 'wire'"), HasSubstr(plugin("groups")), HasSubstr(plugin("duplicate_group"))));
  }
  EXPECT_EQ(registry.find("unseen"), nullptr);
}

// Runs itself once more with a real user id that differs from the effective one, which is what a set-user-id program
// has.
TEST_F(LoaderTest, ASetUserIdProgramIgnoresTheEnvironment) {
  if (::getauxval(AT_SECURE) != 0) {
    const ScopedVariable variable("ATTNMUX_PLUGIN_PATH", folder_.string());
    PluginRegistry registry;
    const PluginScan scan = scan_plugins({}, registry);
    ASSERT_EQ(scan.folders.size(), 2u);
    EXPECT_EQ(scan.folders[0].source, "beside the core library");
    EXPECT_EQ(registry.find("good"), nullptr);  // of ATTNMUX_PLUGIN_FILES
    return;
  }
  if (::geteuid() != 0) GTEST_SKIP() << "only root can become another real user";
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    constexpr uid_t kNobody = 65534;
    if (::setreuid(kNobody, 0) != 0) ::_exit(99);
    ::execl("/proc/self/exe", "loader_test", "--gtest_filter=LoaderTest.ASetUserIdProgramIgnoresTheEnvironment",
            nullptr);
    ::_exit(98);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

// --- refusals before any code of the plugin runs ---

TEST_F(LoaderTest, MissingFile) {
  const PluginFile file = verdict(path("missing.so"));
  EXPECT_EQ(file.error, ErrorCode::kNotFound);
  EXPECT_THAT(file.text, HasSubstr("No such file"));
}

TEST_F(LoaderTest, NotElf) {
  EXPECT_EQ(verdict(write("text.so", "#!/bin/sh\necho a script, longer than an ELF header of 64 bytes is\n")).error,
            ErrorCode::kNotElf);
  EXPECT_EQ(verdict(write("empty.so", "")).error, ErrorCode::kNotElf);
  EXPECT_THAT(verdict(write("short.so", "hello\n")).text,
              AllOf(HasSubstr("ELF magic"), HasSubstr("A plugin is a shared library (*.so)")));
  fs::create_directories(folder_ / "folder.so");
  const PluginFile folder = verdict(path("folder.so"));
  EXPECT_EQ(folder.error, ErrorCode::kNotElf);
  EXPECT_THAT(folder.text, AllOf(HasSubstr("not a regular file"), HasSubstr("A plugin is a shared library (*.so)")));
}

TEST_F(LoaderTest, Truncated) {
  const std::string file = copy("good", "truncated.so");
  for (const uintmax_t size : {fs::file_size(file) - 1, fs::file_size(file) / 2, uintmax_t{100}, uintmax_t{10}}) {
    fs::resize_file(file, size);
    const PluginFile result = verdict(file);
    EXPECT_EQ(result.error, ErrorCode::kNotElf) << size;
    EXPECT_THAT(result.text, HasSubstr("not a complete shared library"));
  }
}

TEST_F(LoaderTest, NoTag) {
  const PluginFile file = verdict(plugin("no_tag"));
  EXPECT_EQ(file.error, ErrorCode::kNoTag);
  EXPECT_THAT(file.text, HasSubstr("attnmux_add_plugin"));
}

TEST_F(LoaderTest, CorruptTags) {
  const PluginFile magic = verdict(with_tag("magic.so", [](AbiTag& tag) { tag.magic[0] = 'B'; }));
  EXPECT_EQ(magic.error, ErrorCode::kTagCorrupt);
  const PluginFile small = verdict(with_tag("small.so", [](AbiTag& tag) { tag.tag_size = 16; }));
  EXPECT_EQ(small.error, ErrorCode::kTagCorrupt);
  EXPECT_THAT(small.text, HasSubstr("tag_size is 16"));
  const PluginFile large = verdict(with_tag("large.so", [](AbiTag& tag) { tag.tag_size = 0xffffffff; }));
  EXPECT_EQ(large.error, ErrorCode::kTagCorrupt);
  const PluginFile endless = verdict(
      with_tag("endless.so", [](AbiTag& tag) { std::memset(tag.torch_version, 'x', sizeof tag.torch_version); }));
  EXPECT_EQ(endless.error, ErrorCode::kTagCorrupt);
}

TEST_F(LoaderTest, WrongTorchVersion) {
  const PluginFile file = verdict(with_tag("torch.so", [](AbiTag& tag) { std::strcpy(tag.torch_version, "2.10.0"); }));
  EXPECT_EQ(file.error, ErrorCode::kAbiMismatch);
  EXPECT_THAT(file.text, AllOf(HasSubstr("torch_version"), HasSubstr("2.10.0"), HasSubstr(TORCH_VERSION)));
  ASSERT_TRUE(file.abi.has_value());  // still shown
  EXPECT_STREQ(file.abi->torch_version, "2.10.0");
  EXPECT_THAT(file.id, IsEmpty());
}

TEST_F(LoaderTest, NewerMinor) {
  const PluginFile file = verdict(with_tag("minor.so", [](AbiTag& tag) { ++tag.abi_minor; }));
  EXPECT_EQ(file.error, ErrorCode::kAbiMismatch);
  EXPECT_THAT(file.text, HasSubstr("abi_minor"));
}

TEST_F(LoaderTest, OtherInterface) {
  const PluginFile file = verdict(with_tag("interface.so", [](AbiTag& tag) { tag.interface_hash[0] ^= 1; }));
  EXPECT_EQ(file.error, ErrorCode::kAbiMismatch);
  EXPECT_THAT(file.text, HasSubstr("interface_hash"));
}

TEST_F(LoaderTest, SeveralMismatchesAtOnce) {
  const PluginFile file = verdict(with_tag("several.so", [](AbiTag& tag) {
    ++tag.abi_major;
    tag.cxx11_abi ^= 1;
    tag.build_flags ^= kBuildDebugStl;
  }));
  EXPECT_THAT(file.text, AllOf(HasSubstr("abi_major"), HasSubstr("cxx11_abi"), HasSubstr("build_flags")));
}

// --- refusals while it is loaded ---

TEST_F(LoaderTest, UndefinedSymbol) {
  const PluginFile file = verdict(plugin("undefined_symbol"));
  EXPECT_EQ(file.error, ErrorCode::kLinkError);
  EXPECT_THAT(file.text, AllOf(HasSubstr("undefined symbol"), HasSubstr("made_by_nobody")));
}

TEST_F(LoaderTest, NoEntry) { EXPECT_EQ(verdict(plugin("no_entry")).error, ErrorCode::kNoEntry); }

TEST_F(LoaderTest, ForeignEntry) {
  const PluginFile file = verdict(plugin("foreign_entry"));
  EXPECT_EQ(file.error, ErrorCode::kForeignEntry);
  EXPECT_THAT(file.text, HasSubstr("libentry_owner.so"));
}

struct BadEntry {
  const char* plugin;
  const char* text;
};

void PrintTo(const BadEntry& bad, std::ostream* out) { *out << bad.plugin; }

class BadEntryTest : public LoaderTest, public testing::WithParamInterface<BadEntry> {};

TEST_P(BadEntryTest, DisagreesWithItsTag) {
  const PluginFile file = verdict(plugin(GetParam().plugin));
  EXPECT_EQ(file.error, ErrorCode::kTagDisagrees);
  EXPECT_THAT(file.text, HasSubstr(GetParam().text));
}

INSTANTIATE_TEST_SUITE_P(Cases, BadEntryTest,
                         testing::Values(BadEntry{"tag_disagrees", "tag in memory"},
                                         BadEntry{"null_entry", "returned null"}, BadEntry{"null_id", "is null"},
                                         BadEntry{"short_entry", "struct_size"}),
                         [](const auto& info) { return info.param.plugin; });

// --- refusals by its init ---

struct Throw {
  const char* what;
  const char* text;
};

void PrintTo(const Throw& thrown, std::ostream* out) { *out << thrown.what; }

class ThrowTest : public LoaderTest, public testing::WithParamInterface<Throw> {};

TEST_P(ThrowTest, BecomesAStatusWithText) {
  const ScopedVariable variable("ATTNMUX_TEST_THROW", GetParam().what);
  const PluginFile file = verdict(plugin("throws_in_init"));
  EXPECT_EQ(file.error, ErrorCode::kInitFailed);
  EXPECT_THAT(file.text, HasSubstr(GetParam().text));
  EXPECT_EQ(file.id, "throwing");
}

INSTANTIATE_TEST_SUITE_P(Cases, ThrowTest,
                         testing::Values(Throw{"c10", "no tensor for you"},
                                         Throw{"bad_alloc", "(status 2): out of memory"},
                                         Throw{"runtime_error", "(status 1): the moon is full"},
                                         Throw{"int", "no std::exception"}, Throw{"id_case", "'Upper'"},
                                         Throw{"id_twice", "registered twice"}, Throw{"null", "no backend"},
                                         Throw{"group_id_case", "group id 'Upper'"},
                                         Throw{"group_id_twice", "registered twice"}, Throw{"null_group", "no group"}),
                         [](const auto& info) { return info.param.what; });

TEST_F(LoaderTest, RegistersNothing) {
  const PluginFile file = verdict(plugin("registers_nothing"));
  EXPECT_EQ(file.error, ErrorCode::kInitFailed);
  EXPECT_THAT(file.text, HasSubstr("registered nothing"));
}

// --- the end ---

TEST_F(LoaderTest, ShutdownIsInReverseOrderAndIdempotent) {
  shutdown_plugins();  // of earlier tests
  ::unsetenv("ATTNMUX_TEST_SHUTDOWN");
  {
    PluginRegistry registry;
    load_plugins({.files = {plugin("good"), plugin("other")}, .relative_to = ""}, registry);
  }
  shutdown_plugins();
  shutdown_plugins();
  EXPECT_STREQ(std::getenv("ATTNMUX_TEST_SHUTDOWN"), "other;good;");

  PluginRegistry again;  // a plugin that was shut down can be used anew
  load_plugins({}, again);
  EXPECT_NE(again.find("good"), nullptr);
  shutdown_plugins();
  EXPECT_STREQ(std::getenv("ATTNMUX_TEST_SHUTDOWN"), "other;good;good;");
  ::unsetenv("ATTNMUX_TEST_SHUTDOWN");
}

}  // namespace
}  // namespace attnmux
