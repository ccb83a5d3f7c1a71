#include "conformance/elf_facts.h"

#include <elf.h>

#include <cstring>
#include <fstream>

#include "attnmux/error.h"
#include "core/plugin/elf_section.h"

namespace attnmux::conformance {
namespace {

constexpr size_t kMaxSection = 64 << 20;

class File {
 public:
  explicit File(const std::string& name) : name_(name), stream_(name, std::ios::binary | std::ios::ate) {
    if (!stream_) throw Error(ErrorCode::kNotFound, name + ": cannot be opened. Name an existing plugin library.");
    size_ = static_cast<uint64_t>(stream_.tellg());
  }

  std::vector<std::byte> section(const char* section_name) {
    const ReadAt read_at = [&](uint64_t offset, void* to, size_t size) {
      stream_.seekg(static_cast<std::streamoff>(offset));
      return static_cast<bool>(stream_.read(static_cast<char*>(to), static_cast<std::streamsize>(size)));
    };
    ElfSection found = read_elf_section(size_, read_at, section_name, kMaxSection);
    if (found.status != ElfStatus::kFound) {
      throw Error(ErrorCode::kNotElf, name_ + ": section " + section_name + ": " + found.problem);
    }
    return std::move(found.bytes);
  }

 private:
  std::string name_;
  std::ifstream stream_;
  uint64_t size_ = 0;
};

// Entries of a table one after another; what is left over at its end is ignored.
template <class Entry, class Function>
void for_each(const std::vector<std::byte>& table, const Function& function) {
  for (size_t at = 0; at + sizeof(Entry) <= table.size(); at += sizeof(Entry)) {
    Entry entry;
    std::memcpy(&entry, table.data() + at, sizeof entry);
    function(entry);
  }
}

std::string text_at(const std::vector<std::byte>& strings, uint64_t offset) {
  if (offset >= strings.size()) return "?";
  const auto* begin = reinterpret_cast<const char*>(strings.data()) + offset;
  return {begin, ::strnlen(begin, strings.size() - offset)};
}

}  // namespace

ElfFacts read_elf_facts(const std::string& name) {
  File file(name);
  const std::vector<std::byte> strings = file.section(".dynstr");
  ElfFacts facts;
  for_each<Elf64_Sym>(file.section(".dynsym"), [&](const Elf64_Sym& symbol) {
    const unsigned binding = ELF64_ST_BIND(symbol.st_info);
    const bool defined = symbol.st_shndx != SHN_UNDEF && symbol.st_shndx != SHN_ABS;
    const bool visible = ELF64_ST_VISIBILITY(symbol.st_other) == STV_DEFAULT;
    if (defined && visible && binding != STB_LOCAL) facts.exports.push_back(text_at(strings, symbol.st_name));
  });
  for_each<Elf64_Dyn>(file.section(".dynamic"), [&](const Elf64_Dyn& entry) {
    if (entry.d_tag == DT_NEEDED) facts.needed.push_back(text_at(strings, entry.d_un.d_val));
  });
  return facts;
}

}  // namespace attnmux::conformance
