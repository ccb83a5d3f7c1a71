// The JSON header of a safetensors file, checked in full before any tensor is touched.
//
//   SafetensorsHeader header = parse_safetensors_header(first_bytes, file_size, "model.safetensors");
//
// Format: https://huggingface.co/docs/safetensors (8 bytes little-endian header length, a JSON object, raw data without
// gaps). Free of ATen, so that it can be fuzzed alone. Any thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace attnmux {

enum class SafetensorsDType : uint8_t { kF64, kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU8, kBool };

std::string_view to_string(SafetensorsDType dtype);  // "F32", as in the file
int64_t size_in_bytes(SafetensorsDType dtype);

struct SafetensorsEntry {
  std::string name;
  SafetensorsDType dtype = SafetensorsDType::kF32;
  std::vector<int64_t> shape{};  // empty: a scalar
  uint64_t begin = 0;            // bytes from the start of the data part
  uint64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;        // in the order of their data
  std::map<std::string, std::string> metadata;  // the "__metadata__" object
  uint64_t data_begin = 0;                      // bytes from the start of the file
};

// A header longer than this is refused unread, as in the reference implementation.
inline constexpr uint64_t kMaxSafetensorsHeader = 100'000'000;

// `bytes`: the file from its start, at least up to the end of its header (more does no harm; less is a truncated file).
// Throws Error(kBadFile) naming file, tensor and both values.
SafetensorsHeader parse_safetensors_header(std::string_view bytes, uint64_t file_size, const std::string& file_name);

// The header of a file that holds `entries` (begin and end are set here, in the given order), with its length and
// padded with blanks to a multiple of eight bytes.
std::string format_safetensors_header(std::vector<SafetensorsEntry>& entries,
                                      const std::map<std::string, std::string>& metadata);

}  // namespace attnmux
