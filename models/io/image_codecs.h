// The two kinds of image files behind image_file.h.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "models/io/image_file.h"

namespace attnmux {

enum class ImagePart : uint8_t { kHeader, kPixels };

struct ImageDecoding {
  std::string_view bytes;
  const std::string& name;  // for messages
  int64_t max_pixels = kMaxImagePixels;
  ImagePart part = ImagePart::kPixels;
};

struct StoredImage {
  RgbImage image;       // as stored; of the header alone without pixels
  int orientation = 1;  // 1 to 8, as EXIF counts them
};

StoredImage decode_png(const ImageDecoding& decoding);
StoredImage decode_jpeg(const ImageDecoding& decoding);

// Throws Error(kBadFile) "NAME: WHAT".
[[noreturn]] void fail_image(const ImageDecoding& decoding, const std::string& what);

// Throws for more pixels than allowed. REQUIRES: height and width of at least 1.
void check_image_size(const ImageDecoding& decoding, const ImageSize& size);

}  // namespace attnmux
