#include "attnmux/abi_tag.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "attnmux/error.h"
#include "elf_section.h"

namespace attnmux {
namespace {

constexpr char kWhatAPluginIs[] =
    ". A plugin is a shared library (*.so) built with attnmux_add_plugin(): name one, or build it again.";
constexpr size_t kMaxSection = 4096;  // a tag is some 200 bytes; room for what later minor versions append

// One line of the table that both compares tags and prints them.
struct AbiField {
  const char* name;
  std::string (*text)(const AbiTag& tag);
  bool (*compatible)(const AbiTag& host, const AbiTag& plugin);
  const char* consequence;
  const char* remedy;
};

template <auto Member>
std::string number(const AbiTag& tag) {
  return std::to_string(tag.*Member);
}

template <auto Member>
std::string number_if_used(const AbiTag& tag) {
  return tag.*Member == 0 ? "not used" : std::to_string(tag.*Member);
}

template <auto Member>
std::string string(const AbiTag& tag) {
  return tag.*Member;
}

template <auto Member>
bool equal(const AbiTag& host, const AbiTag& plugin) {
  return host.*Member == plugin.*Member;
}

template <auto Member>
bool equal_if_used(const AbiTag& host, const AbiTag& plugin) {
  return plugin.*Member == 0 || host.*Member == plugin.*Member;
}

template <auto Member>
bool equal_string(const AbiTag& host, const AbiTag& plugin) {
  return std::strcmp(host.*Member, plugin.*Member) == 0;
}

bool minor_not_newer(const AbiTag& host, const AbiTag& plugin) { return plugin.abi_minor <= host.abi_minor; }

// g++ 12, 13 and 14 (versions 17 to 19) lay objects out alike and differ in the mangled names of some lambdas only,
// which never cross the boundary: a plugin built on Debian 12 loads on Ubuntu 24.04. Others must be equal.
bool same_layout(const AbiTag& host, const AbiTag& plugin) {
  const auto known = [](uint32_t version) { return version >= 1017 && version <= 1019; };
  return host.gxx_abi_version == plugin.gxx_abi_version ||
         (known(host.gxx_abi_version) && known(plugin.gxx_abi_version));
}

std::string build_flags_text(const AbiTag& tag) {
  std::string text;
  const auto add = [&](uint32_t bit, const char* name) {
    if (tag.build_flags & bit) text += (text.empty() ? "" : ", ") + std::string(name);
  };
  add(kBuildDebugStl, "_GLIBCXX_DEBUG");
  add(kBuildAddressSanitizer, "AddressSanitizer");
  add(kBuildThreadSanitizer, "ThreadSanitizer");
  return text.empty() ? "none" : text;
}

constexpr AbiField kCompared[] = {
    {"abi_major", number<&AbiTag::abi_major>, equal<&AbiTag::abi_major>,
     "the plugin's entry has another layout and cannot be called", "build the plugin with this release's SDK"},
    {"abi_minor", number<&AbiTag::abi_minor>, minor_not_newer, "the plugin may use what this program does not have yet",
     "upgrade attnmux, or build the plugin with this release's SDK"},
    {"interface_hash", string<&AbiTag::interface_hash>, equal_string<&AbiTag::interface_hash>,
     "the attnmux headers differ, so classes may differ in layout and virtual functions in order",
     "build the plugin against the headers installed with this program"},
    {"torch_version", string<&AbiTag::torch_version>, equal_string<&AbiTag::torch_version>,
     "tensors of the two sides differ in layout, and LibTorch symbols may be missing",
     "build the plugin against the LibTorch version of this program"},
    {"cxx11_abi", number<&AbiTag::cxx11_abi>, equal<&AbiTag::cxx11_abi>, "std::string has another layout",
     "build the plugin with the same -D_GLIBCXX_USE_CXX11_ABI"},
    {"gxx_abi_version", number<&AbiTag::gxx_abi_version>, same_layout, "classes may be laid out otherwise",
     "build the plugin with the compiler family of this program, without -fabi-version"},
    {"build_flags", build_flags_text, equal<&AbiTag::build_flags>,
     "standard containers differ in layout, or the sanitizer runtime is missing",
     "build the plugin with the same sanitizers and without a debug STL of its own"},
    {"cudart_major", number_if_used<&AbiTag::cudart_major>, equal_if_used<&AbiTag::cudart_major>,
     "two CUDA runtimes would share one process, and streams could not be handed over",
     "build the plugin with the CUDA major version of this program's LibTorch"},
    {"nccl_major", number_if_used<&AbiTag::nccl_major>, equal_if_used<&AbiTag::nccl_major>,
     "two NCCL versions cannot share a communicator", "build the plugin with the NCCL major version of this program"},
};

constexpr struct {
  const char* name;
  std::string (*text)(const AbiTag& tag);
} kShown[] = {{"compiler", string<&AbiTag::compiler>}, {"sm_list", string<&AbiTag::sm_list>}};

// Closes its descriptor; -1 where the file could not be opened.
class OpenFile {
 public:
  explicit OpenFile(const std::string& file) : fd_(::open(file.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~OpenFile() {
    if (fd_ >= 0) ::close(fd_);
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
};

template <size_t N>
bool terminated(const char (&text)[N]) {
  return std::memchr(text, '\0', N) != nullptr;
}

AbiTag parse_tag(const std::string& file, const std::vector<std::byte>& bytes) {
  const auto corrupt = [&](const std::string& problem) {
    return Error(ErrorCode::kTagCorrupt, file + ": its " + kAbiSection + " section is corrupt: " + problem +
                                             ". Build the plugin again with attnmux_add_plugin().");
  };
  AbiTag tag;
  if (bytes.size() < sizeof(AbiTag)) {
    throw corrupt("it has " + std::to_string(bytes.size()) + " bytes, a tag has " + std::to_string(sizeof(AbiTag)));
  }
  if (std::memcmp(bytes.data(), tag.magic, sizeof tag.magic) != 0) throw corrupt("it does not begin with ATTNMUX");
  uint32_t tag_size = 0;
  std::memcpy(&tag_size, bytes.data() + offsetof(AbiTag, tag_size), sizeof tag_size);
  // A newer minor version may have appended fields; then tag_size is larger and the comparison refuses by abi_minor.
  if (tag_size < sizeof(AbiTag) || tag_size > bytes.size()) {
    throw corrupt("tag_size is " + std::to_string(tag_size) + ", a tag has " + std::to_string(sizeof(AbiTag)) +
                  " bytes and the section " + std::to_string(bytes.size()));
  }
  std::memcpy(static_cast<void*>(&tag), bytes.data(), sizeof(AbiTag));
  if (!terminated(tag.interface_hash) || !terminated(tag.torch_version) || !terminated(tag.compiler) ||
      !terminated(tag.sm_list)) {
    throw corrupt("a text in it has no end");
  }
  return tag;
}

}  // namespace

const AbiTag& host_abi_tag() {
  static constexpr AbiTag tag =
      make_abi_tag({.cudart_major = ATTNMUX_TORCH_CUDART_MAJOR, .nccl_major = ATTNMUX_TORCH_NCCL_MAJOR, .sm_list = {}});
  return tag;
}

AbiTag read_abi_tag(const std::string& file) {
  const OpenFile open(file);
  struct stat status {};
  if (open.fd() < 0 || ::fstat(open.fd(), &status) != 0) {
    throw Error(ErrorCode::kNotFound,
                file + ": cannot be opened: " + std::strerror(errno) + ". Name an existing plugin library.");
  }
  if (!S_ISREG(status.st_mode)) throw Error(ErrorCode::kNotElf, file + ": is not a regular file" + kWhatAPluginIs);

  const ReadAt read_at = [&](uint64_t offset, void* to, size_t size) {
    while (size > 0) {
      const ssize_t got = ::pread(open.fd(), to, size, static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return false;
      to = static_cast<char*>(to) + got;
      offset += static_cast<uint64_t>(got);
      size -= static_cast<size_t>(got);
    }
    return true;
  };
  const ElfSection section = read_elf_section(static_cast<uint64_t>(status.st_size), read_at, kAbiSection, kMaxSection);
  switch (section.status) {
    case ElfStatus::kFound: break;
    case ElfStatus::kNotElf:
      throw Error(ErrorCode::kNotElf, file + ": is not a complete shared library: " + section.problem + kWhatAPluginIs);
    case ElfStatus::kNoSection:
      throw Error(ErrorCode::kNoTag,
                  file + ": is not an attnmux plugin: " + section.problem +
                      ". A plugin holds ATTNMUX_PLUGIN(...) and is built with attnmux_add_plugin().");
    case ElfStatus::kDamagedSection:
      throw Error(ErrorCode::kTagCorrupt, file + ": " + section.problem + kWhatAPluginIs);
  }
  return parse_tag(file, section.bytes);
}

std::vector<AbiMismatch> compare_abi(const AbiTag& host, const AbiTag& plugin) {
  std::vector<AbiMismatch> mismatches;
  for (const AbiField& field : kCompared) {
    if (field.compatible(host, plugin)) continue;
    mismatches.push_back({field.name, field.text(host), field.text(plugin), field.consequence, field.remedy});
  }
  return mismatches;
}

std::string describe(const std::string& file, const std::vector<AbiMismatch>& mismatches) {
  std::string text = file + ": was not built for this program;";
  for (const AbiMismatch& mismatch : mismatches) {
    text += "\n  " + mismatch.field + ": this program " + mismatch.host + ", the plugin " + mismatch.plugin + ": " +
            mismatch.consequence + "; " + mismatch.remedy;
  }
  return text;
}

std::vector<AbiFieldText> abi_fields(const AbiTag& tag) {
  std::vector<AbiFieldText> fields;
  for (const AbiField& field : kCompared) fields.push_back({field.name, field.text(tag)});
  for (const auto& field : kShown) fields.push_back({field.name, field.text(tag)});
  return fields;
}

}  // namespace attnmux
