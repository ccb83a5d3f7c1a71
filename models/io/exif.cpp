#include "models/io/exif.h"

#include <cstddef>
#include <cstdint>

namespace attnmux {
namespace {

using namespace std::string_view_literals;

// A TIFF file in memory. Bytes beyond its end read as 0.
class Tiff {
 public:
  explicit Tiff(std::string_view bytes) : bytes_(bytes), big_endian_(bytes.starts_with("MM")) {}

  bool valid() const { return bytes_.starts_with("II\x2a\0"sv) || bytes_.starts_with("MM\0\x2a"sv); }
  uint32_t u16(size_t at) const { return big_endian_ ? byte(at) << 8 | byte(at + 1) : byte(at + 1) << 8 | byte(at); }
  uint32_t u32(size_t at) const { return big_endian_ ? u16(at) << 16 | u16(at + 2) : u16(at + 2) << 16 | u16(at); }

 private:
  uint32_t byte(size_t at) const { return at < bytes_.size() ? static_cast<unsigned char>(bytes_[at]) : 0; }
  std::string_view bytes_;
  bool big_endian_;
};

}  // namespace

int exif_orientation(std::string_view exif) {
  constexpr uint32_t kOrientation = 0x0112, kShort = 3, kLong = 4;
  while (exif.starts_with("Exif\0\0"sv)) exif.remove_prefix(6);
  const Tiff tiff(exif);
  if (!tiff.valid()) return 0;
  const size_t directory = tiff.u32(4);
  const size_t entries = tiff.u16(directory);
  for (size_t i = 0; i < entries; ++i) {
    const size_t entry = directory + 2 + 12 * i;
    if (tiff.u16(entry) != kOrientation || tiff.u32(entry + 4) != 1) continue;
    const uint32_t type = tiff.u16(entry + 2);
    const uint32_t value = type == kShort ? tiff.u16(entry + 8) : type == kLong ? tiff.u32(entry + 8) : 0;
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 0;
  }
  return 0;
}

int xmp_orientation(std::string_view xmp) {
  constexpr std::string_view kName = "tiff:Orientation";
  for (size_t at = xmp.find(kName); at != std::string_view::npos; at = xmp.find(kName, at + 1)) {
    std::string_view rest = xmp.substr(at + kName.size());
    if (rest.starts_with("=\"")) {
      rest.remove_prefix(2);
    } else if (rest.starts_with(">")) {
      rest.remove_prefix(1);
    } else {
      continue;
    }
    if (!rest.empty() && rest[0] >= '1' && rest[0] <= '8') return rest[0] - '0';
  }
  return 0;
}

}  // namespace attnmux
