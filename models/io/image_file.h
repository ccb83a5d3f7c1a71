// PNG and JPEG files as RGB pixels.
//
//   RgbImage image = read_image("photos/cat.jpg");
//   ImageSize size = read_image_size("photos/cat.jpg");      // from the header alone
//
// The pixels are those of transformers' load_image (image_utils.py, 5.23.0, with Pillow): turned upright as EXIF or XMP
// ask (in a PNG where they stand before the pixels), then converted to RGB. So an alpha channel is dropped, not
// blended, CMYK is taken as inverted, as Adobe writes it, a sample of 16 bits keeps its high byte, but a grey one of 16
// bits is cut at 255. Colour profiles and gamma are not applied. Stricter than Pillow where pixels are lost: a wrong
// check sum or a broken Huffman code is an error. Pure functions but for reading the file, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace attnmux {

struct ImageSize {
  int64_t height = 0;
  int64_t width = 0;
  friend bool operator==(const ImageSize&, const ImageSize&) = default;
};

struct RgbImage {
  ImageSize size;
  std::vector<uint8_t> pixels;  // [height, width, 3]
};

// Pillow's limit, too: beyond it a file is taken for an attack. Checked before anything is allocated.
inline constexpr int64_t kMaxImagePixels = 178'956'970;

// Throw Error(kBadFile) naming the file, what was found and what is allowed: a file that is missing, empty, neither PNG
// nor JPEG by its first bytes, corrupt, cut off, without pixels or with more than the limit.
RgbImage read_image(const std::string& path);
ImageSize read_image_size(const std::string& path);

// The same from a file's bytes; `name` is for messages.
RgbImage decode_image(std::string_view bytes, const std::string& name, int64_t max_pixels = kMaxImagePixels);

}  // namespace attnmux
