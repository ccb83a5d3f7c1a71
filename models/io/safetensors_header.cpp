#include "models/io/safetensors_header.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <tuple>

#include "attnmux/error.h"
#include "models/io/json_node.h"

namespace attnmux {
namespace {

constexpr char kMetadataKey[] = "__metadata__";
constexpr uint64_t kLengthBytes = 8;
constexpr char kTruncated[] = ". It is truncated: fetch or write it again";
constexpr char kDamaged[] = "; the file is damaged: fetch or write it again";

struct DTypeName {
  SafetensorsDType dtype;
  std::string_view name;
  int64_t bytes;
};
constexpr std::array<DTypeName, 10> kDTypes = {{{SafetensorsDType::kF64, "F64", 8},
                                                {SafetensorsDType::kF32, "F32", 4},
                                                {SafetensorsDType::kF16, "F16", 2},
                                                {SafetensorsDType::kBF16, "BF16", 2},
                                                {SafetensorsDType::kI64, "I64", 8},
                                                {SafetensorsDType::kI32, "I32", 4},
                                                {SafetensorsDType::kI16, "I16", 2},
                                                {SafetensorsDType::kI8, "I8", 1},
                                                {SafetensorsDType::kU8, "U8", 1},
                                                {SafetensorsDType::kBool, "BOOL", 1}}};

const DTypeName& row(SafetensorsDType dtype) { return kDTypes[static_cast<size_t>(dtype)]; }

[[noreturn]] void fail(const std::string& file_name, const std::string& what) {
  throw Error(ErrorCode::kBadFile, file_name + ": " + what);
}

uint64_t read_length(std::string_view bytes, uint64_t file_size, const std::string& file_name) {
  if (file_size < kLengthBytes || bytes.size() < kLengthBytes) {
    fail(file_name, "is " + std::to_string(file_size) +
                        " bytes long; a safetensors file starts with 8 bytes of header length. It is truncated or of "
                        "another format: fetch it again, or name a *.safetensors file");
  }
  uint64_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) length |= uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  if (length > kMaxSafetensorsHeader) {
    fail(file_name, "the header claims " + std::to_string(length) + " bytes; at most " +
                        std::to_string(kMaxSafetensorsHeader) +
                        " are allowed. It is not a safetensors file: name one, *.safetensors");
  }
  if (length > file_size - kLengthBytes || length > bytes.size() - kLengthBytes) {
    fail(file_name, "the header claims " + std::to_string(length) + " bytes, but the file holds only " +
                        std::to_string(file_size - kLengthBytes) + " after the length" + kTruncated);
  }
  return length;
}

uint64_t non_negative(const JsonNode& value) {
  if (value.integer() < 0) value.fail("a number that is not negative is expected");
  return static_cast<uint64_t>(value.integer());
}

SafetensorsDType read_dtype(const JsonNode& value) {
  std::string known;
  for (const DTypeName& candidate : kDTypes) {
    if (candidate.name == value.text()) return candidate.dtype;
    known += (known.empty() ? "" : ", ") + std::string(candidate.name);
  }
  value.fail("known dtypes are " + known);
}

std::string list_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

// Bytes of a tensor, or nothing when they overflow 64 bits.
std::optional<uint64_t> size_of(const SafetensorsEntry& entry) {
  // A zero extent makes any shape empty, however large its others.
  if (std::find(entry.shape.begin(), entry.shape.end(), 0) != entry.shape.end()) return 0;
  int64_t bytes = size_in_bytes(entry.dtype);
  for (const int64_t extent : entry.shape) {
    if (__builtin_mul_overflow(bytes, extent, &bytes)) return std::nullopt;
  }
  return static_cast<uint64_t>(bytes);
}

SafetensorsEntry read_entry(const std::string& name, const JsonNode& object) {
  for (const auto& [key, value] : object.members()) {
    if (key != "dtype" && key != "shape" && key != "data_offsets") {
      value.fail("a tensor has the keys dtype, shape and data_offsets alone");
    }
  }
  SafetensorsEntry entry{.name = name, .dtype = read_dtype(object.at("dtype"))};
  const JsonNode shape = object.at("shape");
  for (const JsonNode& extent : shape.elements()) entry.shape.push_back(static_cast<int64_t>(non_negative(extent)));
  const JsonNode offsets = object.at("data_offsets");
  if (offsets.elements().size() != 2) offsets.fail("two offsets are expected: begin and end");
  entry.begin = non_negative(offsets.elements()[0]);
  entry.end = non_negative(offsets.elements()[1]);

  const std::string range = list_text({static_cast<int64_t>(entry.begin), static_cast<int64_t>(entry.end)});
  if (entry.begin > entry.end) offsets.fail(range + " is inverted" + kDamaged);
  const std::optional<uint64_t> bytes = size_of(entry);
  if (!bytes) shape.fail(list_text(entry.shape) + " has a size that overflows 64 bits" + kDamaged);
  if (entry.end - entry.begin != *bytes) {
    offsets.fail(range + " spans " + std::to_string(entry.end - entry.begin) + " bytes, but dtype " +
                 std::string(to_string(entry.dtype)) + " and shape " + list_text(entry.shape) + " need " +
                 std::to_string(*bytes) + kDamaged);
  }
  return entry;
}

// The tensors must tile the data part: no gap, no overlap, nothing behind the end.
void check_layout(const std::vector<SafetensorsEntry>& entries, uint64_t data_size, const std::string& file_name) {
  uint64_t expected = 0;
  std::string before = "the start of the data";
  for (const SafetensorsEntry& entry : entries) {
    if (entry.begin != expected) {
      fail(file_name, "tensor \"" + entry.name + "\" begins at byte " + std::to_string(entry.begin) + ", but " +
                          before + " ends at " + std::to_string(expected) +
                          (entry.begin < expected ? ": they overlap" : ": there is a gap between them") + kDamaged);
    }
    if (entry.end > data_size) {
      fail(file_name, "tensor \"" + entry.name + "\" ends at byte " + std::to_string(entry.end) +
                          " of the data, but the file holds only " + std::to_string(data_size) + kTruncated);
    }
    expected = entry.end;
    before = "tensor \"" + entry.name + "\"";
  }
  if (expected != data_size) {
    fail(file_name, "the tensors end at byte " + std::to_string(expected) + " of the data, but the file holds " +
                        std::to_string(data_size) + ": surplus bytes" + kDamaged);
  }
}

}  // namespace

std::string_view to_string(SafetensorsDType dtype) { return row(dtype).name; }
int64_t size_in_bytes(SafetensorsDType dtype) { return row(dtype).bytes; }

SafetensorsHeader parse_safetensors_header(std::string_view bytes, uint64_t file_size, const std::string& file_name) {
  const uint64_t length = read_length(bytes, file_size, file_name);
  const JsonNode object = JsonNode::parse(bytes.substr(kLengthBytes, length), file_name, ErrorCode::kBadFile);
  SafetensorsHeader header;
  header.data_begin = kLengthBytes + length;
  for (const auto& [name, value] : object.members()) {
    if (name == kMetadataKey) {
      for (const auto& [key, text] : value.members()) header.metadata[key] = text.text();
    } else {
      header.entries.push_back(read_entry(name, value));
    }
  }
  std::sort(header.entries.begin(), header.entries.end(), [](const auto& a, const auto& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  check_layout(header.entries, file_size - header.data_begin, file_name);
  return header;
}

std::string format_safetensors_header(std::vector<SafetensorsEntry>& entries,
                                      const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  if (!metadata.empty()) object[kMetadataKey] = metadata;
  uint64_t offset = 0;
  for (SafetensorsEntry& entry : entries) {
    uint64_t bytes = static_cast<uint64_t>(size_in_bytes(entry.dtype));
    for (const int64_t extent : entry.shape) bytes *= static_cast<uint64_t>(extent);
    entry.begin = offset;
    entry.end = offset += bytes;
    if (entry.name == kMetadataKey || object.contains(entry.name)) {
      throw Error(ErrorCode::kInvalidArgument,
                  "tensor name \"" + entry.name + (entry.name == kMetadataKey ? "\" is reserved" : "\" is used twice"));
    }
    object[entry.name] = {
        {"dtype", to_string(entry.dtype)}, {"shape", entry.shape}, {"data_offsets", {entry.begin, entry.end}}};
  }
  std::string text;
  try {
    text = object.dump();
  } catch (const nlohmann::json::type_error& error) {
    throw Error(ErrorCode::kInvalidArgument,
                std::string("a tensor name or a metadata text is not UTF-8: ") + error.what());
  }
  text.append((kLengthBytes - text.size() % kLengthBytes) % kLengthBytes, ' ');
  std::string length;
  for (size_t i = 0; i < kLengthBytes; ++i) length += static_cast<char>(text.size() >> (8 * i));
  return length + text;
}

}  // namespace attnmux
