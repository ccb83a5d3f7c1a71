// Safetensors headers: any bytes give an Error or a header whose tensors tile the data, and which can be written again.
#include <cstdlib>

#include "attnmux/error.h"
#include "models/io/safetensors_header.h"

namespace {

void check(bool condition) {
  if (!condition) std::abort();
}

void check_header(const attnmux::SafetensorsHeader& header, uint64_t file_size) {
  uint64_t end = 0;
  for (const attnmux::SafetensorsEntry& entry : header.entries) {
    check(entry.begin == end && entry.end >= entry.begin);
    end = entry.end;
  }
  check(header.data_begin + end == file_size);
  std::vector<attnmux::SafetensorsEntry> entries = header.entries;
  std::string text;
  try {
    text = attnmux::format_safetensors_header(entries, header.metadata);
  } catch (const attnmux::Error& error) {
    std::abort();
  }
  const auto again = attnmux::parse_safetensors_header(text, text.size() + end, "again");
  check(again.entries.size() == header.entries.size() && again.metadata == header.metadata);
}

}  // namespace

// The first two bytes: how much data follows the header.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 2, size - 2);
  const uint64_t file_size = bytes.size() + data[0] + 256 * data[1];
  try {
    check_header(attnmux::parse_safetensors_header(bytes, file_size, "fuzz"), file_size);
  } catch (const attnmux::Error&) {
  }
  return 0;
}
