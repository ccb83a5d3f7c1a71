// What a shared library exports and needs, read from the file without loading it.
#pragma once

#include <string>
#include <vector>

namespace attnmux::conformance {

struct ElfFacts {
  std::vector<std::string> exports;  // defined symbols that others may be bound to
  std::vector<std::string> needed;   // DT_NEEDED, in order
};

// Throws Error(kNotElf) for a file without these tables.
ElfFacts read_elf_facts(const std::string& file);

}  // namespace attnmux::conformance
