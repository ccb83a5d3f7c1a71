#include "models/io/safetensors_header.h"

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "attnmux/error.h"

namespace attnmux {
namespace {

using nlohmann::json;

constexpr char kMetadataKey[] = "__metadata__";
constexpr uint64_t kLengthBytes = 8;

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
                        "another format");
  }
  uint64_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) length |= uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  if (length > kMaxSafetensorsHeader) {
    fail(file_name, "the header claims " + std::to_string(length) + " bytes; at most " +
                        std::to_string(kMaxSafetensorsHeader) + " are allowed. It is not a safetensors file");
  }
  if (length > file_size - kLengthBytes || length > bytes.size() - kLengthBytes) {
    fail(file_name, "the header claims " + std::to_string(length) + " bytes, but the file holds only " +
                        std::to_string(file_size - kLengthBytes) + " after the length. It is truncated");
  }
  return length;
}

// nlohmann keeps the last of two equal keys; the format forbids them.
json parse_unique(std::string_view text, const std::string& file_name) {
  std::vector<std::set<std::string>> open_objects;
  std::string duplicate;
  const auto callback = [&](int, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start) open_objects.emplace_back();
    if (event == json::parse_event_t::object_end) open_objects.pop_back();
    if (event == json::parse_event_t::key && !open_objects.back().insert(parsed.get_ref<const std::string&>()).second) {
      if (duplicate.empty()) duplicate = parsed.get<std::string>();
    }
    return true;
  };
  json header;
  try {
    header = json::parse(text, callback);
  } catch (const json::parse_error& error) {
    fail(file_name, std::string("the header is not JSON: ") + error.what());
  }
  if (!duplicate.empty()) fail(file_name, "the header names \"" + duplicate + "\" twice");
  if (!header.is_object()) {
    fail(file_name, std::string("the header is a JSON ") + header.type_name() + ", expected an object");
  }
  return header;
}

std::map<std::string, std::string> read_metadata(const json& value, const std::string& file_name) {
  if (!value.is_object()) {
    fail(file_name, std::string("__metadata__ is a JSON ") + value.type_name() + ", expected an object of texts");
  }
  std::map<std::string, std::string> metadata;
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) {
      fail(file_name, "__metadata__." + key + " is a JSON " + text.type_name() + ", expected a text");
    }
    metadata[key] = text.get<std::string>();
  }
  return metadata;
}

// One tensor's object, read key by key with errors that name the tensor.
class EntryReader {
 public:
  EntryReader(const std::string& name, const json& object, const std::string& file_name)
      : name_(name), object_(object), file_name_(file_name) {}

  SafetensorsEntry read() const {
    if (!object_.is_object()) refuse(std::string("is a JSON ") + object_.type_name() + ", expected an object");
    for (const auto& [key, value] : object_.items()) {
      if (key != "dtype" && key != "shape" && key != "data_offsets") {
        refuse("has an unknown key \"" + key + "\"; dtype, shape and data_offsets are known");
      }
    }
    SafetensorsEntry entry;
    entry.name = name_;
    entry.dtype = read_dtype();
    for (const json& extent : at("shape")) entry.shape.push_back(static_cast<int64_t>(number(extent, "shape")));
    const json& offsets = at("data_offsets");
    if (offsets.size() != 2) refuse("data_offsets holds " + std::to_string(offsets.size()) + " numbers, expected 2");
    entry.begin = number(offsets[0], "data_offsets");
    entry.end = number(offsets[1], "data_offsets");
    check_size(entry);
    return entry;
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const { fail(file_name_, "tensor \"" + name_ + "\" " + what); }

  const json& member(const char* key) const {
    const auto found = object_.find(key);
    if (found == object_.end()) refuse(std::string("has no ") + key);
    return *found;
  }

  const json& at(const char* key) const {  // an array
    const json& value = member(key);
    if (!value.is_array()) refuse(std::string(key) + " is a JSON " + value.type_name() + ", expected an array");
    return value;
  }

  uint64_t number(const json& value, const char* key) const {
    constexpr auto kMax = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    if (!value.is_number_unsigned() || value.get<uint64_t>() > kMax) {
      refuse(std::string(key) + " holds " + value.dump(-1, ' ', false, json::error_handler_t::replace) +
             ", expected an integer from 0 to " + std::to_string(kMax));
    }
    return value.get<uint64_t>();
  }

  SafetensorsDType read_dtype() const {
    const json& value = member("dtype");
    if (!value.is_string()) refuse(std::string("dtype is a JSON ") + value.type_name() + ", expected a text");
    std::string known;
    for (const DTypeName& candidate : kDTypes) {
      if (candidate.name == value.get_ref<const std::string&>()) return candidate.dtype;
      known += (known.empty() ? "" : ", ") + std::string(candidate.name);
    }
    refuse("has dtype \"" + value.get<std::string>() + "\"; known are " + known);
  }

  void check_size(const SafetensorsEntry& entry) const {
    if (entry.begin > entry.end) {
      refuse("data_offsets [" + std::to_string(entry.begin) + ", " + std::to_string(entry.end) + "] are inverted");
    }
    // A zero extent makes any shape empty, however large its others.
    const bool empty = std::find(entry.shape.begin(), entry.shape.end(), 0) != entry.shape.end();
    int64_t bytes = empty ? 0 : size_in_bytes(entry.dtype);
    for (const int64_t extent : entry.shape) {
      if (!empty && __builtin_mul_overflow(bytes, extent, &bytes)) {
        refuse("has a shape " + shape_text(entry) + " whose size overflows 64 bits");
      }
    }
    if (entry.end - entry.begin != static_cast<uint64_t>(bytes)) {
      refuse("has dtype " + std::string(to_string(entry.dtype)) + " and shape " + shape_text(entry) + ", " +
             std::to_string(bytes) + " bytes, but data_offsets [" + std::to_string(entry.begin) + ", " +
             std::to_string(entry.end) + "] span " + std::to_string(entry.end - entry.begin));
    }
  }

  static std::string shape_text(const SafetensorsEntry& entry) {
    std::string text = "[";
    for (size_t i = 0; i < entry.shape.size(); ++i) text += (i ? ", " : "") + std::to_string(entry.shape[i]);
    return text + "]";
  }

  const std::string& name_;
  const json& object_;
  const std::string& file_name_;
};

// The tensors must tile the data part: no gap, no overlap, nothing behind the end.
void check_layout(const std::vector<SafetensorsEntry>& entries, uint64_t data_size, const std::string& file_name) {
  uint64_t expected = 0;
  std::string before = "the start of the data";
  for (const SafetensorsEntry& entry : entries) {
    if (entry.begin != expected) {
      fail(file_name, "tensor \"" + entry.name + "\" begins at byte " + std::to_string(entry.begin) + ", but " +
                          before + " ends at " + std::to_string(expected) +
                          (entry.begin < expected ? ": they overlap" : ": there is a gap between them"));
    }
    if (entry.end > data_size) {
      fail(file_name, "tensor \"" + entry.name + "\" ends at byte " + std::to_string(entry.end) +
                          " of the data, but the file holds only " + std::to_string(data_size) + ". It is truncated");
    }
    expected = entry.end;
    before = "tensor \"" + entry.name + "\"";
  }
  if (expected != data_size) {
    fail(file_name, "the tensors end at byte " + std::to_string(expected) + " of the data, but the file holds " +
                        std::to_string(data_size) + ": surplus bytes");
  }
}

}  // namespace

std::string_view to_string(SafetensorsDType dtype) { return row(dtype).name; }
int64_t size_in_bytes(SafetensorsDType dtype) { return row(dtype).bytes; }

SafetensorsHeader parse_safetensors_header(std::string_view bytes, uint64_t file_size, const std::string& file_name) {
  const uint64_t length = read_length(bytes, file_size, file_name);
  const json object = parse_unique(bytes.substr(kLengthBytes, length), file_name);
  SafetensorsHeader header;
  header.data_begin = kLengthBytes + length;
  for (const auto& [name, value] : object.items()) {
    if (name == kMetadataKey) {
      header.metadata = read_metadata(value, file_name);
    } else {
      header.entries.push_back(EntryReader(name, value, file_name).read());
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
  } catch (const json::type_error& error) {
    throw Error(ErrorCode::kInvalidArgument,
                std::string("a tensor name or a metadata text is not UTF-8: ") + error.what());
  }
  text.append((kLengthBytes - text.size() % kLengthBytes) % kLengthBytes, ' ');
  std::string length;
  for (size_t i = 0; i < kLengthBytes; ++i) length += static_cast<char>(text.size() >> (8 * i));
  return length + text;
}

}  // namespace attnmux
