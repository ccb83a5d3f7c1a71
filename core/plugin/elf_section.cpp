#include "elf_section.h"

#include <elf.h>

#include <cstring>

namespace attnmux {
namespace {

#if defined(__x86_64__)
constexpr uint16_t kHostMachine = EM_X86_64;
#elif defined(__aarch64__)
constexpr uint16_t kHostMachine = EM_AARCH64;
#endif

// The file as a range of bytes of known length.
class Window {
 public:
  Window(uint64_t size, const ReadAt& read_at) : size_(size), read_at_(read_at) {}

  bool holds(uint64_t offset, uint64_t length) const { return offset <= size_ && length <= size_ - offset; }
  // An empty read asks nobody: there may be no memory to read into.
  bool read(uint64_t offset, void* to, size_t length) const {
    return holds(offset, length) && (length == 0 || read_at_(offset, to, length));
  }

 private:
  uint64_t size_;
  const ReadAt& read_at_;
};

ElfSection not_elf(std::string problem) { return {ElfStatus::kNotElf, {}, std::move(problem)}; }
ElfSection damaged(std::string problem) { return {ElfStatus::kDamagedSection, {}, std::move(problem)}; }

std::string range(uint64_t offset, uint64_t length) {
  return "at offset " + std::to_string(offset) + ", " + std::to_string(length) + " bytes";
}

// Empty: a shared object for this machine.
std::string header_problem(const Elf64_Ehdr& header) {
  if (header.e_ident[EI_CLASS] != ELFCLASS64) return "the file is not 64-bit ELF";
  if (header.e_ident[EI_DATA] != ELFDATA2LSB) return "the file is not little-endian ELF";
  if (header.e_type != ET_DYN)
    return "the file is ELF type " + std::to_string(header.e_type) + ", not a shared object (3)";
  if (header.e_machine != kHostMachine) {
    return "the file is for ELF machine " + std::to_string(header.e_machine) + ", this program for " +
           std::to_string(kHostMachine);
  }
  return {};
}

}  // namespace

ElfSection read_elf_section(uint64_t file_size, const ReadAt& read_at, std::string_view name, size_t max_size) {
  const Window file(file_size, read_at);
  Elf64_Ehdr header{};
  // Before the length: a short text is told that it is no library, not that it is cut off.
  if (!file.read(0, header.e_ident, SELFMAG) || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) {
    return not_elf("the file does not begin with the ELF magic");
  }
  if (!file.read(0, &header, sizeof header)) {
    return not_elf("the file has " + std::to_string(file_size) + " bytes, an ELF header alone has " +
                   std::to_string(sizeof header));
  }
  if (std::string problem = header_problem(header); !problem.empty()) return not_elf(std::move(problem));

  if (header.e_shentsize != sizeof(Elf64_Shdr)) {
    return not_elf("section headers of " + std::to_string(header.e_shentsize) + " bytes instead of " +
                   std::to_string(sizeof(Elf64_Shdr)));
  }
  // e_shnum is 16 bits wide; the extension for more sections (a count of 0) is for object files, not for plugins.
  const uint64_t table_bytes = uint64_t{header.e_shnum} * sizeof(Elf64_Shdr);
  if (header.e_shnum == 0 || !file.holds(header.e_shoff, table_bytes)) {
    return not_elf("its section table (" + range(header.e_shoff, table_bytes) + ") is not inside the file of " +
                   std::to_string(file_size) + " bytes");
  }
  std::vector<Elf64_Shdr> sections(header.e_shnum);
  if (!file.read(header.e_shoff, sections.data(), table_bytes)) return not_elf("its section table cannot be read");

  if (header.e_shstrndx >= sections.size()) {
    return not_elf("the name table is section " + std::to_string(header.e_shstrndx) + " of " +
                   std::to_string(sections.size()));
  }
  const Elf64_Shdr& names = sections[header.e_shstrndx];
  if (!file.holds(names.sh_offset, names.sh_size)) {
    return not_elf("its name table (" + range(names.sh_offset, names.sh_size) + ") is not inside the file of " +
                   std::to_string(file_size) + " bytes");
  }

  // Only the searched name's length is read of each name, so a huge table costs nothing.
  std::string found(name.size() + 1, '\0');
  for (const Elf64_Shdr& section : sections) {
    if (section.sh_name > names.sh_size || names.sh_size - section.sh_name < found.size()) continue;
    if (!file.read(names.sh_offset + section.sh_name, found.data(), found.size())) {
      return not_elf("its name table cannot be read");
    }
    if (found.back() != '\0' || std::string_view(found.data(), name.size()) != name) continue;

    if (section.sh_type == SHT_NOBITS || section.sh_size > max_size ||
        !file.holds(section.sh_offset, section.sh_size)) {
      return damaged("section " + std::string(name) + " (" + range(section.sh_offset, section.sh_size) +
                     ") is not inside the file or longer than " + std::to_string(max_size) + " bytes");
    }
    ElfSection result{ElfStatus::kFound, std::vector<std::byte>(section.sh_size), {}};
    if (!file.read(section.sh_offset, result.bytes.data(), result.bytes.size())) {
      return damaged("section " + std::string(name) + " cannot be read");
    }
    return result;
  }
  return {ElfStatus::kNoSection, {}, "the library has no section " + std::string(name)};
}

}  // namespace attnmux
