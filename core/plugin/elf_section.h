// Reads one section out of an ELF file without trusting a byte of it.
//
//   std::vector<std::byte> tag = read_elf_section(size, read_at, ".attnmux.abi", 4096);
//
// Only what a 64-bit little-endian shared object needs: the file header, the section table, the name table. Every
// offset and length is checked against the file's size before it is used. Any thread; no LibTorch, so that the fuzzer
// builds it alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace attnmux {

// Fills `to` with `size` bytes at `offset`; the reader asks within the file's size only. False: the file could not be
// read.
using ReadAt = std::function<bool(uint64_t offset, void* to, size_t size)>;

enum class ElfStatus {
  kFound,
  kNotElf,          // not a complete shared object for this machine
  kNoSection,       // no section of this name
  kDamagedSection,  // the section lies outside the file or is longer than allowed
};

struct ElfSection {
  ElfStatus status = ElfStatus::kNotElf;
  std::vector<std::byte> bytes;  // of the section, when found
  std::string problem;           // otherwise: what is wrong, with the values at fault
};

// A section longer than `max_size` counts as damaged.
ElfSection read_elf_section(uint64_t file_size, const ReadAt& read_at, std::string_view name, size_t max_size);

}  // namespace attnmux
