#include "models/io/image_file.h"

#include <cstdio>
#include <utility>

#include "attnmux/error.h"
#include "models/io/atomic_file.h"
#include "models/io/image_codecs.h"

namespace attnmux {
namespace {

using namespace std::string_view_literals;

constexpr std::string_view kPng = "\x89PNG\r\n\x1a\n"sv;
constexpr std::string_view kJpeg = "\xff\xd8\xff"sv;

// What a file is that is neither, by its first bytes.
std::string described(std::string_view bytes) {
  if (bytes.empty()) return "the file is empty";
  if (bytes.starts_with("GIF8")) return "a GIF";
  if (bytes.starts_with("BM")) return "a BMP";
  if (bytes.starts_with("RIFF") && bytes.size() > 12 && bytes.substr(8, 4) == "WEBP") return "a WebP";
  if (bytes.starts_with("II\x2a\0"sv) || bytes.starts_with("MM\0\x2a"sv)) return "a TIFF";
  if (bytes.size() > 12 && bytes.substr(4, 4) == "ftyp") return "a HEIC, AVIF or video file";
  if (bytes.starts_with("<")) return "an SVG or other XML";
  std::string text = "it begins with the bytes";
  for (const char c : bytes.substr(0, 8)) {
    char hex[4];
    std::snprintf(hex, sizeof hex, " %02x", static_cast<unsigned>(static_cast<unsigned char>(c)));
    text += hex;
  }
  return text;
}

StoredImage decode(const ImageDecoding& decoding) {
  if (decoding.bytes.starts_with(kPng)) return decode_png(decoding);
  if (decoding.bytes.starts_with(kJpeg)) return decode_jpeg(decoding);
  fail_image(decoding, described(decoding.bytes) +
                           "; PNG and JPEG are read, whatever the name: convert the image, "
                           "e.g. with ImageMagick: convert IMAGE IMAGE.png");
}

// Orientations from 5 on lie on their side.
ImageSize upright_size(const StoredImage& stored) {
  const ImageSize& size = stored.image.size;
  return stored.orientation >= 5 ? ImageSize{.height = size.width, .width = size.height} : size;
}

RgbImage upright(StoredImage stored) {
  if (stored.orientation == 1) return std::move(stored.image);
  const auto [height, width] = stored.image.size;
  RgbImage image{upright_size(stored), std::vector<uint8_t>(stored.image.pixels.size())};
  uint8_t* to = image.pixels.data();
  for (int64_t y = 0; y < image.size.height; ++y) {
    for (int64_t x = 0; x < image.size.width; ++x, to += 3) {
      int64_t row = stored.orientation >= 5 ? x : y, column = stored.orientation >= 5 ? y : x;
      switch (stored.orientation) {
        case 2: column = width - 1 - column; break;
        case 3: row = height - 1 - row, column = width - 1 - column; break;
        case 4: row = height - 1 - row; break;
        case 6: row = height - 1 - row; break;
        case 7: row = height - 1 - row, column = width - 1 - column; break;
        case 8: column = width - 1 - column; break;
        default: break;
      }
      const uint8_t* from = stored.image.pixels.data() + 3 * (row * width + column);
      to[0] = from[0], to[1] = from[1], to[2] = from[2];
    }
  }
  return image;
}

}  // namespace

void fail_image(const ImageDecoding& decoding, const std::string& what) {
  throw Error(ErrorCode::kBadFile, decoding.name + ": " + what);
}

void check_image_size(const ImageDecoding& decoding, const ImageSize& size) {
  if (size.height <= decoding.max_pixels / size.width) return;
  fail_image(decoding, std::to_string(size.width) + " x " + std::to_string(size.height) + " pixels, allowed are " +
                           std::to_string(decoding.max_pixels) + " in all; scale the image down first");
}

RgbImage decode_image(std::string_view bytes, const std::string& name, int64_t max_pixels) {
  return upright(decode({.bytes = bytes, .name = name, .max_pixels = max_pixels, .part = ImagePart::kPixels}));
}

RgbImage read_image(const std::string& path) { return decode_image(read_whole_file(path), path); }

ImageSize read_image_size(const std::string& path) {
  const std::string bytes = read_whole_file(path);
  return upright_size(
      decode({.bytes = bytes, .name = path, .max_pixels = kMaxImagePixels, .part = ImagePart::kHeader}));
}

}  // namespace attnmux
