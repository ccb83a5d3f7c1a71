// The ELF section reader on arbitrary bytes: no read outside the file, no crash, and an answer with a reason.
#include <cstdlib>
#include <cstring>

#include "core/plugin/elf_section.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const attnmux::ReadAt read_at = [&](uint64_t offset, void* to, size_t length) {
    if (offset > size || length > size - offset) std::abort();  // the reader must have checked
    std::memcpy(to, data + offset, length);
    return true;
  };
  const attnmux::ElfSection section = attnmux::read_elf_section(size, read_at, ".attnmux.abi", 4096);
  const bool found = section.status == attnmux::ElfStatus::kFound;
  if (found != section.problem.empty() || section.bytes.size() > 4096) std::abort();
  return 0;
}
